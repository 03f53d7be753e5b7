#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/random.h"
#include "erank/base/threads.h"
#include "erank/base/utf8.h"

namespace erank::base {
namespace {

std::string scratch(const std::string& name) { return testing::TempDir() + "erank_base_" + name; }

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& e) {
    return e.what();
  }
  return "(no error)";
}

TEST(Error, NamesPlaceAndBothSides) {
  EXPECT_EQ(message_of([] { fail(ErrorKind::kCorrupt, "load", "x.bin: ", 3, ", expected ", 4); }),
            "[load] x.bin: 3, expected 4");
  EXPECT_THROW(ERANK_CHECK(1 > 2, "values ", 1), InternalError);
}

TEST(Error, IsOneLineThatIsSafeToShow) {
  const std::string hostile("id '\x1b[31m\0b\nc\xff\xc2\x9b\x7f\xe2\x80\xae' \xc3\xa9 \\", 26);
  EXPECT_EQ(message_of([&] { fail(ErrorKind::kInvalidInput, "x", hostile); }),
            "[x] id '\\x1b[31m\\x00b\\nc\\xff\\x9b\\x7f\\u202e' \xc3\xa9 \\");
  EXPECT_EQ(printable("\xe2\x80\xa6 \xe2\x81\xa7 \xe2\x80"), "\xe2\x80\xa6 \\u2067 \\xe2\\x80");
  EXPECT_EQ(in_quotes("a\tb"), "'a\\tb'");
  EXPECT_EQ(in_quotes("12\xc3\xa9"
                      "4567",
                      3),
            "'12...'");
  EXPECT_EQ(in_quotes("1234", 4), "'1234'");
}

TEST(Json, HalvesOfSurrogatePairsAreReplacedAndNothingElse) {
  const auto replaced = [](const std::string& text) { return replace_half_surrogates(text); };
  for (const char* same : {"", "x", R"("\ud83e\udd94")", R"("\\ud800")", R"("\\\\udc00")",
                           R"("\ud7ff\ue000\uD83E\uDD94")", R"("\u12)", R"(\)"})
    EXPECT_EQ(replaced(same), same);
  EXPECT_EQ(replaced(R"("\ud800")"), R"("\ufffd")");
  EXPECT_EQ(replaced(R"("\uDFFF\uD800x\\\ud800")"), R"("\ufffd\ufffdx\\\ufffd")");
  EXPECT_EQ(replaced(R"("\ud83e\ud83e\udd94")"), R"("\ufffd\ud83e\udd94")");
}

TEST(Json, RefusesWhatWouldBeSilentlyLost) {
  EXPECT_EQ(parse_json(R"({"a":[1,2.5,"x"]})", "t")["a"][1], 2.5);
  EXPECT_THROW(parse_json(R"({"a":1,"a":2})", "t"), Error);
  EXPECT_THROW(parse_json("{\"a\":\"\xff\"}", "t"), Error);
  EXPECT_THROW(parse_json("{} x", "t"), Error);
  EXPECT_THROW(parse_json("", "t"), Error);
  EXPECT_THROW(parse_json(std::string(1000, '['), "t"), Error);
  EXPECT_NE(message_of([] { parse_json("{\"a\":", "docs.jsonl:12"); }).find("docs.jsonl:12"),
            std::string::npos);
}

TEST(Json, TypedReadsNameTheKey) {
  const Json object = parse_json(R"({"n":3,"f":3.0,"x":"y","big":1e300,"none":null})", "t");
  EXPECT_EQ(json_value<int>(object, "n", 0, "t"), 3);
  EXPECT_EQ(json_value<int>(object, "f", 0, "t"), 3);
  EXPECT_EQ(json_value<int>(object, "none", 7, "t"), 7);
  EXPECT_THROW(json_value<int>(object, "big", 0, "t"), Error);
  EXPECT_NE(message_of([&] { json_value<int>(object, "x", 0, "c.json"); }).find("'x' is \"y\""),
            std::string::npos);
  EXPECT_NE(message_of([&] { json_require<int>(object, "zz", "c.json"); }).find("'zz' is missing"),
            std::string::npos);
  EXPECT_NE(message_of([&] {
              refuse_unknown_keys(object, {"n", "f"}, "c.json");
            }).find("unknown key"),
            std::string::npos);
}

TEST(Files, MapAndHashSeeTheBytes) {
  const std::string path = scratch("map");
  write_file_atomic(path, "abc");
  const MappedFile map(path);
  EXPECT_EQ(map.bytes().size(), 3u);
  EXPECT_EQ(map.bytes()[2], 'c');
  EXPECT_EQ(sha256_file(path), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  write_file_atomic(path, "");
  EXPECT_EQ(sha256_file(path), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(MappedFile(path).bytes().size(), 0u);
}

TEST(Files, APointerOfGitLfsIsNoContent) {
  const std::string path = scratch("pointer");
  const std::string pointer =
      "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n";
  write_file_atomic(path, pointer);
  for (const auto& read : {std::function<void()>([&] { read_file(path); }),
                           std::function<void()>([&] { MappedFile file(path); })}) {
    const std::string message = message_of(read);
    EXPECT_NE(message.find(path + ": is a Git LFS pointer"), message.npos) << message;
    EXPECT_NE(message.find("git lfs pull"), message.npos) << message;
  }
  write_file_atomic(path, pointer + std::string(1024, ' '));
  EXPECT_EQ(message_of([&] { read_file(path); }), "(no error)");
}

TEST(Random, IsTheSameEverywhereAndFillsTheRange) {
  EXPECT_EQ(Random(0).next(), 0xe220a8397b1dcdafull);  // first value of the published generator
  Random random(1);
  std::set<uint64_t> seen;
  double sum = 0, squares = 0;
  for (int i = 0; i < 20000; ++i) {
    seen.insert(random.below(7));
    const double x = random.normal();
    sum += x, squares += x * x;
  }
  EXPECT_EQ(seen.size(), 7u);
  EXPECT_NEAR(sum / 20000, 0, 0.03);
  EXPECT_NEAR(squares / 20000, 1, 0.05);
}

TEST(Threads, CoverEveryIndexOnceAndPassOnFaults) {
  std::vector<int> hits(1000);
  parallel_ranges(hits.size(), 3, [&](size_t a, size_t b) {
    for (; a < b; ++a) ++hits[a];
  });
  EXPECT_EQ(hits, std::vector<int>(1000, 1));
  EXPECT_THROW(parallel_ranges(5, 2, [](size_t, size_t) { fail(ErrorKind::kExhausted, "t", "x"); }),
               Error);
  parallel_ranges(0, 2, [](size_t, size_t) { FAIL(); });
}

TEST(Utf8, ReplacesEachMaximalIllFormedPart) {
  const std::string r = "\xef\xbf\xbd";
  EXPECT_EQ(sanitize_utf8("h\xc3\xa9llo"), "h\xc3\xa9llo");
  EXPECT_EQ(sanitize_utf8("\xff"), r);
  EXPECT_EQ(sanitize_utf8("a\xe2\x82"), "a" + r);               // cut inside a character: one mark
  EXPECT_EQ(sanitize_utf8("\xc0\xaf"), r + r);                  // overlong
  EXPECT_EQ(sanitize_utf8("\xed\xa0\x80"), r + r + r);          // surrogate
  EXPECT_EQ(sanitize_utf8("\xf4\x90\x80\x80"), r + r + r + r);  // beyond U+10FFFF
  EXPECT_EQ(sanitize_utf8("\xf0\x9f\x98x"), r + "x");
  EXPECT_FALSE(is_valid_utf8("\x80"));
  EXPECT_EQ(utf8_prefix("a\xc3\xa9", 2), 1u);
  EXPECT_EQ(utf8_prefix("a\xc3\xa9", 3), 3u);
  std::string out;
  append_utf8(out, 0x1f600);
  EXPECT_EQ(out, "\xf0\x9f\x98\x80");
}

}  // namespace
}  // namespace erank::base
