#include "erank/data/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>

#include "erank/base/error.h"
#include "tests/fuzz/memory_file.h"
#include "tests/gguf_bytes.h"
#include "tests/shared_data.h"
#include "tests/test_folder.h"

namespace erank::data {
namespace {

using namespace erank::testing::gguf_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file of every kind of value and two tensors, small enough to try each of its bytes.
std::string sample(uint32_t version = 3) {
  const std::string f32s = raw(1.5f) + raw(-2.0f);
  return gguf({key("u8", kUint8, raw<uint8_t>(200)), key("i8", kInt8, raw<int8_t>(-5)),
               key("u16", kUint16, raw<uint16_t>(65535)), key("i16", kInt16, raw<int16_t>(-300)),
               key("u32", kUint32, u32(4'000'000'000)), key("i32", kInt32, raw<int32_t>(-7)),
               key("u64", kUint64, u64(INT64_MAX)), key("i64", kInt64, raw<int64_t>(INT64_MIN)),
               key("f32", kFloat32, raw(0.5f)), key("f64", kFloat64, raw(0.1)),
               key("yes", kBool, raw<uint8_t>(1)), key("name", kString, text("erank")),
               key("ints", kArray, u32(kInt16) + u64(2) + raw<int16_t>(-1) + raw<int16_t>(2)),
               key("floats", kArray, u32(kFloat32) + u64(2) + f32s),
               key("texts", kArray, u32(kString) + u64(3) + text("a") + text("") + text("bc")),
               key("bools", kArray, u32(kBool) + u64(2) + std::string("\x01\x00", 2)),
               key("empty", kArray, u32(kUint32) + u64(0))},
              {tensor("a", {32, 2}, kQ8_0, 0), tensor("b", {3}, kF32, 96)},
              std::string(68, '\x01') + std::string(28, '\0') + raw(1.0f) + raw(2.0f) + raw(3.0f),
              32, version);
}

class Gguf : public ::testing::Test {
 protected:
  GgufFile open(const std::string& bytes) {
    path_ = file_.hold(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    return GgufFile::open(path_);
  }

  // The message of the Error{kCorrupt} that opening these bytes throws, or "(opened)".
  std::string refusal(const std::string& bytes) {
    try {
      open(bytes);
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), base::ErrorKind::kCorrupt) << e.what();
      EXPECT_THAT(e.what(), HasSubstr(path_));
      return e.what();
    }
    return "(opened)";
  }

  fuzz::MemoryFile file_{"gguf"};
  std::string path_;  // of the bytes that were opened last
};

TEST_F(Gguf, ReadsEveryKindOfValueInVersions2And3) {
  for (const uint32_t version : {2u, 3u}) {
    const GgufFile file = open(sample(version));
    EXPECT_EQ(file.require<int64_t>("u8"), 200);
    EXPECT_EQ(file.require<int64_t>("i8"), -5);
    EXPECT_EQ(file.require<int64_t>("u16"), 65535);
    EXPECT_EQ(file.require<int64_t>("i16"), -300);
    EXPECT_EQ(file.require<int64_t>("u32"), 4'000'000'000);
    EXPECT_EQ(file.require<int64_t>("i32"), -7);
    EXPECT_EQ(file.require<int64_t>("u64"), INT64_MAX);
    EXPECT_EQ(file.require<int64_t>("i64"), INT64_MIN);
    EXPECT_EQ(file.require<double>("f32"), 0.5);
    EXPECT_EQ(file.require<double>("f64"), 0.1);
    EXPECT_TRUE(file.require<bool>("yes"));
    EXPECT_EQ(file.require<std::string>("name"), "erank");
    EXPECT_THAT(file.require<std::vector<int64_t>>("ints"), ElementsAre(-1, 2));
    EXPECT_THAT(file.require<std::vector<double>>("floats"), ElementsAre(1.5, -2.0));
    EXPECT_THAT(file.require<std::vector<std::string>>("texts"), ElementsAre("a", "", "bc"));
    EXPECT_THAT(file.require<std::vector<bool>>("bools"), ElementsAre(true, false));
    EXPECT_TRUE(file.require<std::vector<int64_t>>("empty").empty());
    EXPECT_EQ(file.metadata().size(), 17u);
  }
}

TEST_F(Gguf, PutsTheSlowestDimensionFirstAndFindsTheBytes) {
  const GgufFile file = open(sample());
  ASSERT_EQ(file.tensors().size(), 2u);
  const TensorInfo &a = file.tensors()[0], &b = file.tensors()[1];
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.dtype, DType::kQ8_0);
  EXPECT_THAT(a.shape, ElementsAre(2, 32));
  EXPECT_EQ(file.bytes(a).size(), 68u);
  EXPECT_EQ(a.begin % 32, 0u);
  EXPECT_EQ(b.dtype, DType::kF32);
  EXPECT_THAT(b.shape, ElementsAre(3));
  float values[3];
  ASSERT_EQ(file.bytes(b).size(), sizeof values);
  std::memcpy(values, file.bytes(b).data(), sizeof values);
  EXPECT_THAT(values, ElementsAre(1.0f, 2.0f, 3.0f));
}

TEST_F(Gguf, NamesTheKeyThatIsMissingOrOfAnotherKind) {
  const GgufFile file = open(sample());
  EXPECT_EQ(file.find<int64_t>("nothing"), nullptr);
  EXPECT_EQ(*file.find<int64_t>("u8"), 200);
  const auto message = [](const std::function<void()>& body) -> std::string {
    try {
      body();
    } catch (const base::Error& e) {
      return e.what();
    }
    return "(no error)";
  };
  EXPECT_THAT(message([&] { file.require<double>("nothing"); }), HasSubstr("'nothing' is missing"));
  EXPECT_THAT(message([&] { file.require<double>("u8"); }),
              HasSubstr("'u8' holds a whole number, expected a number"));
  EXPECT_THAT(message([&] { file.find<std::vector<bool>>("texts"); }),
              HasSubstr("'texts' holds a list of texts, expected a list of true or false"));
}

TEST_F(Gguf, RefusesAFileThatIsCutOffAnywhere) {
  const std::string whole = sample();
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(refusal(whole.substr(0, size)), "(opened)") << size << " bytes of " << whole.size();
}

TEST_F(Gguf, GivesAnErrorOrASoundFileWhateverByteIsWrong) {
  const std::string whole = sample();
  for (size_t at = 0; at < whole.size(); ++at)
    for (const char change : {'\x01', '\x80', '\xff', '\x10'}) {
      std::string bytes = whole;
      bytes[at] ^= change;
      if (refusal(bytes) != "(opened)") continue;
      const GgufFile file = GgufFile::open(path_);
      for (const TensorInfo& info : file.tensors()) {
        ASSERT_LE(info.begin, info.end);
        ASSERT_LE(info.end, bytes.size());
        EXPECT_EQ(tensor_bytes(info.dtype, info.shape), file.bytes(info).size());
      }
    }
}

TEST_F(Gguf, RefusesWhatIsNotGguf) {
  EXPECT_THAT(refusal(""), HasSubstr("does not begin with GGUF"));
  EXPECT_THAT(refusal("GGML" + u32(3) + u64(0) + u64(0)), HasSubstr("does not begin with GGUF"));
  EXPECT_THAT(refusal(gguf({}, {}, "", 32, 1)), HasSubstr("version 1 is not supported"));
  EXPECT_THAT(refusal(gguf({}, {}, "", 32, 0x03000000)), HasSubstr("little-endian"));
  EXPECT_EQ(refusal(gguf({}, {}, "")), "(opened)");
  try {
    GgufFile::open("no such file.gguf");
    ADD_FAILURE();
  } catch (const base::Error& e) {
    EXPECT_EQ(e.kind(), base::ErrorKind::kNotFound);
  }
}

TEST_F(Gguf, RefusesCountsAndSizesThatTheFileCannotHold) {
  const std::string rest(200, '\0');
  for (const uint64_t huge : {uint64_t{1} << 63, UINT64_MAX, uint64_t{1} << 40}) {
    EXPECT_THAT(refusal("GGUF" + u32(3) + u64(huge) + u64(0) + rest), HasSubstr("cut off"));
    EXPECT_THAT(refusal("GGUF" + u32(3) + u64(0) + u64(huge) + rest), HasSubstr("cut off"));
    const std::string one = "GGUF" + u32(3) + u64(0) + u64(1);
    EXPECT_THAT(refusal(one + u64(huge) + rest), HasSubstr("a text of"));
    EXPECT_THAT(refusal(one + key("k", kString, u64(huge)) + rest), HasSubstr("key 'k': needs"));
    for (const uint32_t type : {kUint8, kBool, kString, kFloat64})
      EXPECT_THAT(refusal(one + key("k", kArray, u32(type) + u64(huge)) + rest),
                  HasSubstr("key 'k': needs"));
    EXPECT_THAT(refusal(gguf({}, {tensor("t", {huge}, kF32, 0)}, rest)), HasSubstr("tensor 't'"));
    EXPECT_THAT(refusal(gguf({}, {tensor("t", {4, huge}, kF32, 0)}, rest)),
                HasSubstr("tensor 't'"));
    EXPECT_THAT(refusal(gguf({}, {tensor("t", {4}, kF32, huge - huge % 32)}, rest)),
                HasSubstr("lie outside the file's 200 bytes"));
  }
  EXPECT_THAT(refusal(gguf({}, {tensor("t", {1ull << 32, 1ull << 32}, kF32, 0)}, rest)),
              HasSubstr("over 2^63 - 1"));
  EXPECT_THAT(refusal(gguf({}, {tensor("t", {0, 1ull << 62, 1ull << 62}, kF32, 0)}, rest)),
              HasSubstr("over 2^63 - 1"));
  EXPECT_THAT(refusal(gguf({key("k", kUint64, u64(UINT64_MAX))}, {}, "")),
              HasSubstr("over 2^63 - 1"));
}

TEST_F(Gguf, RefusesBadValues) {
  EXPECT_THAT(
      refusal(gguf({key("k", kArray, u32(kArray) + u64(1) + u32(kUint8) + u64(0))}, {}, "")),
      HasSubstr("arrays inside arrays"));
  EXPECT_THAT(refusal(gguf({key("k", 13, u64(0))}, {}, "")), HasSubstr("unknown value type 13"));
  EXPECT_THAT(refusal(gguf({key("k", kArray, u32(99) + u64(0))}, {}, "")),
              HasSubstr("unknown value type 99"));
  EXPECT_THAT(refusal(gguf({key("k", kBool, raw<uint8_t>(2))}, {}, "")), HasSubstr("neither true"));
  EXPECT_THAT(refusal(gguf({key("k", kInt8, "a"), key("k", kInt8, "a")}, {}, "")),
              HasSubstr("key 'k': is given twice"));
  EXPECT_THAT(refusal(gguf({key(std::string(70000, 'k'), kInt8, "a")}, {}, "")),
              HasSubstr("at most 65535"));
}

TEST_F(Gguf, RefusesBadTensors) {
  const std::string data(256, '\0');
  const auto with = [&](const std::string& a, const std::string& b = "") {
    return refusal(b.empty() ? gguf({}, {a}, data) : gguf({}, {a, b}, data));
  };
  EXPECT_EQ(with(tensor("t", {8, 8}, kF32, 0)), "(opened)");
  EXPECT_THAT(with(tensor("t", {8, 9}, kF32, 0)),
              HasSubstr("its 288 bytes at offset 0 lie outside"));
  EXPECT_THAT(with(tensor("t", {8}, kF32, 4)), HasSubstr("not a multiple of the alignment 32"));
  EXPECT_THAT(with(tensor("t", {8}, kF32, 256)), HasSubstr("lie outside"));
  EXPECT_THAT(with(tensor("t", {33}, kQ8_0, 0)), HasSubstr("not whole blocks of 32 values"));
  EXPECT_THAT(with(tensor("t", {}, kQ8_0, 0)), HasSubstr("not whole blocks"));
  EXPECT_THAT(with(tensor("t", {256}, kQ2_K, 0)),
              HasSubstr("element type number 10 is not supported"));
  EXPECT_THAT(with(tensor("t", {256}, UINT32_MAX, 0)), HasSubstr("is not supported"));
  EXPECT_THAT(with(tensor("t", {1, 1, 1, 1, 1}, kF32, 0)), HasSubstr("has 5 dimensions"));
  EXPECT_THAT(with(tensor(std::string(65, 't'), {1}, kF32, 0)), HasSubstr("at most 64"));
  EXPECT_THAT(with(tensor("t", {8}, kF32, 0), tensor("t", {8}, kF32, 32)),
              HasSubstr("given twice"));
  EXPECT_THAT(with(tensor("s", {16}, kF32, 32), tensor("t", {9}, kF32, 0)),
              HasSubstr("tensors 't' and 's' overlap"));
  EXPECT_THAT(with(tensor("s", {16}, kF32, 0), tensor("t", {16}, kF32, 0)), HasSubstr("overlap"));
  EXPECT_EQ(with(tensor("s", {16}, kF32, 0), tensor("t", {0}, kF32, 32)), "(opened)");
}

TEST_F(Gguf, HonoursTheAlignmentAndRefusesAnImpossibleOne) {
  const auto with = [](uint32_t alignment, size_t real) {
    return gguf({key("general.alignment", kUint32, u32(alignment))}, {tensor("t", {1}, kF32, 0)},
                raw(7.0f), real);
  };
  for (const uint32_t alignment : {1u, 8u, 64u, 4096u}) {
    const GgufFile file = open(with(alignment, alignment));
    EXPECT_EQ(file.tensors()[0].begin % alignment, 0u);
    EXPECT_EQ(file.bytes(file.tensors()[0])[3], 0x40);
  }
  for (const uint32_t alignment : {0u, 3u, 48u, 0xffffffffu})
    EXPECT_THAT(refusal(with(alignment, 32)), HasSubstr("not a power of two")) << alignment;
  EXPECT_THAT(refusal(with(1u << 31, 32)), HasSubstr("lie outside"));
  EXPECT_THAT(refusal(gguf({key("general.alignment", kInt32, raw<int32_t>(-32))}, {}, "")),
              HasSubstr("not a power of two"));
  EXPECT_THAT(refusal(gguf({key("general.alignment", kString, text("32"))}, {}, "")),
              HasSubstr("holds a text, expected a whole number"));
}

TEST_F(Gguf, RefusesAHeaderOverTheLimit) {
  // The file has the bytes, as a hole, so only the limit on headers can refuse it.
  const uint64_t size = 200'000'000;
  const std::string head =
      "GGUF" + u32(3) + u64(0) + u64(1) + text("k") + u32(kArray) + u32(kUint8) + u64(size - 4096);
  refusal(head);
  ASSERT_EQ(::truncate(path_.c_str(), static_cast<off_t>(size)), 0);
  try {
    GgufFile::open(path_);
    ADD_FAILURE();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("key 'k': the header is longer than 100000000 bytes"));
  }
}

TEST_F(Gguf, ReadsFilesThatOthersWrote) {
  const std::string folder = erank::testing::shared_data("model-fixtures/gguf-and-shards");
  if (folder.empty()) GTEST_SKIP() << "the collection model-fixtures is not beside the repository";
  for (const auto& [name, num_tensors, dtype] : {std::tuple{"f32", 21u, DType::kF32},
                                                 {"f16", 21u, DType::kF16},
                                                 {"q8", 20u, DType::kQ8_0}}) {
    const GgufFile file = GgufFile::open(folder + "/tiny_llama_" + name + ".gguf");
    EXPECT_EQ(file.require<std::string>("general.architecture"), "llama");
    EXPECT_EQ(file.tensors().size(), num_tensors);
    EXPECT_EQ(file.tensors()[0].name, "token_embd.weight");
    EXPECT_EQ(file.tensors()[0].dtype, dtype);
    EXPECT_EQ(file.tensors()[0].shape[1], file.require<int64_t>("llama.embedding_length"));
    EXPECT_EQ(file.tensors()[0].shape[0], file.require<int64_t>("llama.vocab_size"));
  }
}

// A model in three files, as llama.cpp's llama-gguf-split writes them.
class SplitGguf : public ::testing::Test {
 protected:
  static std::string part(uint16_t number, uint16_t count, const std::string& name, float value,
                          int32_t tensors = 3) {
    std::vector<std::string> keys = {key("split.no", kUint16, raw(number)),
                                     key("split.count", kUint16, raw(count)),
                                     key("split.tensors.count", kInt32, raw(tensors))};
    if (number == 0) keys.push_back(key("name", kString, text("whole")));
    return gguf(keys, {tensor(name, {1}, kF32, 0)}, raw(value));
  }
  void SetUp() override {
    for (uint16_t i = 0; i < 3; ++i)
      folder_.write(name(i), part(i, 3, std::string(1, static_cast<char>('a' + i)), i + 1.0f));
  }
  static std::string name(int number) { return base::str("m-0000", number + 1, "-of-00003.gguf"); }
  std::string refusal(const std::string& name) const {
    try {
      GgufFile::open(folder_.path(name));
      return "(opened)";
    } catch (const base::Error& e) {
      return e.what();
    }
  }
  const TestFolder folder_;
};

TEST_F(SplitGguf, AnyPartOpensAll) {
  for (int i = 0; i < 3; ++i) {
    const GgufFile file = GgufFile::open(folder_.path(name(i)));
    EXPECT_EQ(file.require<std::string>("name"), "whole");
    EXPECT_EQ(file.file().path(), folder_.path(name(0)));
    ASSERT_EQ(file.tensors().size(), 3u);
    for (size_t t = 0; t < 3; ++t) {
      const TensorInfo& info = file.tensors()[t];
      EXPECT_EQ(info.name, std::string(1, static_cast<char>('a' + t)));
      EXPECT_EQ(file.file_of(info).path(), folder_.path(name(static_cast<int>(t))));
      float value = 0;
      std::memcpy(&value, file.bytes(info).data(), sizeof value);
      EXPECT_EQ(value, static_cast<float>(t + 1));
    }
  }
  EXPECT_EQ(gguf_files("x/m-00002-of-00003.gguf").back(), "x/m-00003-of-00003.gguf");
  for (const char* alone :
       {"m.gguf", "m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-0000a-of-00003.gguf",
        "m_00001-of-00003.gguf", "00001-of-00003.gguf"})
    EXPECT_THAT(gguf_files(alone), ElementsAre(alone));
}

TEST_F(SplitGguf, NamesThePartThatIsMissingOrAnothers) {
  folder_.write("alone.gguf", part(1, 3, "b", 2));
  EXPECT_THAT(refusal("alone.gguf"), HasSubstr("part 2 of 3"));
  EXPECT_THAT(refusal("alone.gguf"), HasSubstr("NAME-00001-of-00003.gguf"));
  folder_.write(name(1), part(2, 3, "b", 2));
  EXPECT_THAT(refusal(name(0)), HasSubstr("m-00002-of-00003.gguf: is not part 2 of 3"));
  folder_.write(name(1), part(1, 3, "a", 2));
  EXPECT_THAT(refusal(name(0)), HasSubstr("tensor 'a' is in another part too"));
  folder_.write(name(1), part(1, 3, "b", 2));
  folder_.write(name(0), part(0, 3, "a", 1, 4));
  EXPECT_THAT(refusal(name(2)), HasSubstr("hold 3 tensors, 'split.tensors.count' says 4"));
  std::filesystem::remove(folder_.path(name(1)));
  EXPECT_THAT(refusal(name(0)), HasSubstr("m-00002-of-00003.gguf: is missing"));
}

}  // namespace
}  // namespace erank::data
