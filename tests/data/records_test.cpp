#include "erank/data/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <future>
#include <limits>
#include <sstream>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "tests/data/errors.h"
#include "tests/shared_data.h"
#include "tests/test_folder.h"

#ifdef ERANK_WITH_COMPRESSION
#include <zlib.h>
#include <zstd.h>
#endif

namespace erank::data {
namespace {

using base::ErrorKind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

#ifdef ERANK_WITH_COMPRESSION
std::string gzipped(std::string_view text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(text.size() + 1000, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd_compressed(std::string_view text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}
#endif

std::vector<std::string> lines_of(const std::string& path, size_t max_bytes = 1 << 30) {
  std::vector<std::string> out;
  for_each_line(
      path,
      [&](std::string_view line, int64_t number) {
        out.emplace_back(line);
        EXPECT_EQ(number, static_cast<int64_t>(out.size()));
      },
      max_bytes);
  return out;
}

TEST(Lines, AreSplitAtNewlinesAlone) {
  const TestFolder folder;
  const auto path = folder.write("a.txt", "\xef\xbb\xbfone\xc2\x85two\r\n\n\xe2\x80\xa8 x\rlast");
  EXPECT_THAT(lines_of(path), ElementsAre("one\xc2\x85two", "", "\xe2\x80\xa8 x\rlast"));
  EXPECT_THAT(
      lines_of(folder.write("marks", "\xef\xbb\xbf\xef\xbb\xbfone\n\xef\xbb\xbftwo\xef\xbb\xbf\n")),
      ElementsAre("one", "two\xef\xbb\xbf"));
  EXPECT_THAT(lines_of(folder.write("empty", "")), ElementsAre());
  EXPECT_THAT(lines_of(folder.write("newline", "\n")), ElementsAre(""));
}

#ifdef ERANK_WITH_COMPRESSION
TEST(Lines, AreTheSameBehindEveryCompressionAndLongerThanAnyBuffer) {
  const TestFolder folder;
  std::string text;
  for (int i = 0; i < 20; ++i)
    text += std::string(static_cast<size_t>(i * 40007), static_cast<char>('a' + i)) + "\n";
  const auto expected = lines_of(folder.write("a.txt", text));
  ASSERT_EQ(expected.size(), 20u);
  EXPECT_EQ(expected[19].size(), 19u * 40007);
  EXPECT_EQ(lines_of(folder.write("a.gz", gzipped(text))), expected);
  EXPECT_EQ(lines_of(folder.write("a.zst", zstd_compressed(text))), expected);
  const size_t half = text.size() / 2;
  const auto members = gzipped(text.substr(0, half)) + gzipped(text.substr(half));
  EXPECT_EQ(lines_of(folder.write("b.gz", members)), expected);
  const auto frames = zstd_compressed(text.substr(0, half)) + zstd_compressed(text.substr(half));
  EXPECT_EQ(lines_of(folder.write("b.zst", frames)), expected);
}

TEST(Lines, OfTruncatedOrDamagedCompressionAreAnError) {
  const TestFolder folder;
  std::string text;
  for (int i = 0; i < 20000; ++i) text += std::to_string(i * 7919) + "\n";
  for (const std::string& whole : {gzipped(text), zstd_compressed(text)}) {
    for (size_t size : {size_t{5}, size_t{20}, whole.size() / 2, whole.size() - 1}) {
      const auto path = folder.write("cut", whole.substr(0, size));
      EXPECT_THAT(error_of(ErrorKind::kCorrupt, [&] { lines_of(path); }), HasSubstr("too early"));
    }
    std::string damaged = whole;
    for (size_t i = whole.size() / 3; i < whole.size() / 3 + 50; ++i) damaged[i] = '\x5a';
    const auto path = folder.write("damaged", damaged);
    error_of(ErrorKind::kCorrupt, [&] { lines_of(path); });
    const auto trailing = folder.write("trailing", whole + "trailing garbage");
    error_of(ErrorKind::kCorrupt, [&] { lines_of(trailing); });
  }
}

TEST(Lines, OverTheLimitAreRefusedBeforeTheyFillMemory) {
  const TestFolder folder;
  const auto bomb = folder.write("bomb.gz", gzipped("short\n" + std::string(10 << 20, 'x')));
  const auto message = error_of(ErrorKind::kExhausted, [&] { lines_of(bomb, 1 << 20); });
  EXPECT_THAT(message, HasSubstr("bomb.gz:2"));
}
#endif

TEST(Lines, NameAMissingFileAFolderAndXzData) {
  const TestFolder folder;
  error_of(ErrorKind::kNotFound, [&] { lines_of(folder.path() + "/none"); });
  error_of(ErrorKind::kInvalidInput, [&] { lines_of(folder.path()); });
  const auto xz = folder.write("a.xz", std::string("\xfd"
                                                   "7zXZ\0\0",
                                                   7));
  EXPECT_THAT(error_of(ErrorKind::kInvalidInput, [&] { lines_of(xz); }), HasSubstr("xz -d"));
}

TEST(Documents, JoinTitleAndTextAndKeepEmptyOnes) {
  const TestFolder folder;
  const auto path = folder.write("c.jsonl",
                                 "{\"_id\": \"a\", \"title\": \"T\", \"text\": \"x\"}\n"
                                 "\n"
                                 "{\"id\": 7, \"text\": \"\"}\n"
                                 "{\"docid\": \"b\", \"contents\": \"y\", \"title\": null}\n"
                                 "{\"_id\": \"c\", \"title\": \"only\", \"text\": \"\"}\n"
                                 "{\"text\": \"no id\"}\n");
  const auto documents = read_documents(path);
  ASSERT_EQ(documents.size(), 5u);
  EXPECT_EQ(documents[0].text, "T x");
  EXPECT_EQ(documents[1].id, "7");
  EXPECT_EQ(documents[1].text, "");
  EXPECT_EQ(documents[2].text, "y");
  EXPECT_EQ(documents[3].text, "only");
  EXPECT_EQ(documents[4].id, "6");
}

TEST(Documents, AreReadFromTsvAndPlainText) {
  const TestFolder folder;
  const auto tsv = read_documents(folder.write("c.tsv", "a\tText\nb\tTitle\tText\n"));
  ASSERT_EQ(tsv.size(), 2u);
  EXPECT_EQ(tsv[0].text, "Text");
  EXPECT_EQ(tsv[1].text, "Title Text");
  const auto txt = read_documents(folder.write("c.txt", "one\n\nbad \xff!\n"));
  ASSERT_EQ(txt.size(), 3u);
  EXPECT_EQ(txt[1].id, "2");
  EXPECT_EQ(txt[1].text, "");
  EXPECT_EQ(txt[2].text, "bad \xef\xbf\xbd!");
}

TEST(Documents, GivenTwiceCountOnceWhenEqualAndAreRefusedWhenNot) {
  const TestFolder folder;
  const auto equal = folder.write("e.tsv", "a\tx\nb\ty\na\tx\n");
  EXPECT_EQ(read_documents(equal).size(), 2u);
  std::vector<std::string> streamed;
  for_each_document(equal, [&](Document document) { streamed.push_back(document.id); });
  std::vector<std::string> held;
  for (const auto& document : read_documents(equal)) held.push_back(document.id);
  EXPECT_EQ(streamed, held);
  const auto differing = folder.write("d.tsv", "a\tx\nb\ty\na\tz\n");
  for (const auto& message :
       {error_of(ErrorKind::kInvalidInput, [&] { read_documents(differing); }),
        error_of(ErrorKind::kInvalidInput, [&] { for_each_document(differing, [](Document) {}); }),
        error_of(ErrorKind::kInvalidInput,
                 [&] { read_documents(differing, std::unordered_set<std::string>{"b"}); })}) {
    EXPECT_THAT(message, HasSubstr("d.tsv:3"));
    EXPECT_THAT(message, HasSubstr("line 1"));
  }
}

TEST(Documents, ThatAreWantedAloneAreKept) {
  const TestFolder folder;
  const auto path = folder.write("c.tsv", "a\tx\nb\ty\nc\tz\n");
  const auto documents = read_documents(path, std::unordered_set<std::string>{"b", "missing"});
  ASSERT_EQ(documents.size(), 1u);
  EXPECT_EQ(documents.at("b").text, "y");
}

TEST(Records, OfTheWrongShapeAreRefusedWithLineAndKeys) {
  const TestFolder folder;
  const auto documents = [&](const std::string& name, const std::string& text) {
    const auto path = folder.write(name, text);
    return error_of(ErrorKind::kInvalidInput, [&] { read_documents(path); });
  };
  const auto no_text =
      documents("a.jsonl", "{\"_id\":\"1\",\"text\":\"x\"}\n{\"_id\":\"2\",\"blurb\":\"x\"}");
  EXPECT_THAT(no_text, HasSubstr("a.jsonl:2"));
  EXPECT_THAT(no_text, HasSubstr("'text', 'contents'"));
  EXPECT_THAT(no_text, HasSubstr("'blurb'"));
  EXPECT_THAT(documents("a.jsonl", "{\"_id\":\"1\",\"text\":5}"), HasSubstr("expected a string"));
  EXPECT_THAT(documents("a.jsonl", "{\"_id\":[1],\"text\":\"x\"}"), HasSubstr("id is array"));
  EXPECT_THAT(documents("a.jsonl", "[1]"), HasSubstr("expected an object"));
  EXPECT_THAT(documents("a.jsonl", "{\"text\":"), HasSubstr("a.jsonl:1"));
  EXPECT_THAT(documents("a.tsv", "no tab here"), HasSubstr("a.tsv:1"));
  EXPECT_THAT(documents("a.xml", "x"), HasSubstr("ending"));
  EXPECT_THAT(documents("a.jsonl", "{\"id\":\"1\",\"text\":null}"), HasSubstr("'text' is null"));
}

TEST(Queries, PreferTheirOwnKey) {
  const TestFolder folder;
  const auto queries = read_queries(folder.write(
      "q.jsonl",
      "{\"qid\": 264014, \"query\": \"fleas\"}\n{\"_id\": \"b\", \"text\": \"ticks\"}\n"));
  ASSERT_EQ(queries.size(), 2u);
  EXPECT_EQ(queries[0].id, "264014");
  EXPECT_EQ(queries[0].text, "fleas");
  EXPECT_EQ(queries[1].text, "ticks");
}

TEST(Runs, KeepTheFilesOrderAndTakeInterleavedQueries) {
  const TestFolder folder;
  const auto run = read_run(folder.write("r.txt",
                                         "# made by hand\n"
                                         "q1 Q0 d2 1 2.5 tag\n"
                                         "q2\tQ0\td1\t1\t-1e-3\ttag\n"
                                         "q1  Q0  d1  2  +1.25  tag and more\n"
                                         "\n"
                                         "q2\tQ0\tan id\t2\t-2\tlast\r\n"));
  EXPECT_THAT(run.qids, ElementsAre("q1", "q2"));
  ASSERT_EQ(run.hits.at("q1").size(), 2u);
  EXPECT_EQ(run.hits.at("q1")[0].docid, "d2");
  EXPECT_EQ(run.hits.at("q1")[1].score, 1.25);
  EXPECT_EQ(run.hits.at("q2")[0].score, -1e-3);
  EXPECT_EQ(run.hits.at("q2")[1].docid, "an id");
  EXPECT_EQ(run.tag, "last");
}

TEST(Runs, ThatCannotBeReadAreRefusedWithTheLine) {
  const TestFolder folder;
  const auto message = [&](const std::string& line) {
    const auto path = folder.write("r.txt", "q Q0 d 1 3 t\n" + line + "\n");
    const auto text = error_of(ErrorKind::kInvalidInput, [&] { read_run(path); });
    EXPECT_THAT(text, HasSubstr("r.txt:2"));
    return text;
  };
  EXPECT_THAT(message("q Q0 e 1 3"), HasSubstr("six"));
  EXPECT_THAT(message("q Q0 e 1 nan t"), HasSubstr("finite"));
  EXPECT_THAT(message("q Q0 e 1 inf t"), HasSubstr("finite"));
  EXPECT_THAT(message("q Q0 e 1 1e999 t"), HasSubstr("finite"));
  EXPECT_THAT(message("q Q0 e 1 3x t"), HasSubstr("finite"));
  EXPECT_THAT(message("q Q0 d 2 1 t"), HasSubstr("line 1"));
  EXPECT_THAT(message("4 Q0 torch/Memory Management_2_0.txt 7 0.6 t"), HasSubstr("blank"));
  EXPECT_THAT(message("4 Q0 torch/Memory 12 7 0.6 t"), HasSubstr("blank"));
}

TEST(Runs, OfAMillionLinesAreReadInUnderASecond) {
  const TestFolder folder;
  std::string text;
  for (int q = 0; q < 1000; ++q)
    for (int d = 0; d < 1000; ++d)
      text += "query" + std::to_string(q) + " Q0 document-number-" + std::to_string(d * 7919 + q) +
              " " + std::to_string(d + 1) + " " + std::to_string(30.0 - d * 0.0123) + " bm25\n";
  const auto path = folder.write("r.txt", text);
  const std::clock_t start = std::clock();
  const auto run = read_run(path);
  [[maybe_unused]] const double seconds =
      static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  EXPECT_EQ(run.qids.size(), 1000u);
  EXPECT_EQ(run.hits.at("query7").size(), 1000u);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  EXPECT_LT(seconds, 1.0);  // processor time: other work may share the machine
#endif
}

TEST(Qrels, AreReadInEveryForm) {
  const TestFolder folder;
  for (const char* text :
       {"q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 1\n", "# c\nq1\t0\td1\t2.0\nq1\t0\td2\t0\nq2\t0\td1\t1",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t1\n",
        "qid\tpid\tscore\r\nq1\td1\t2\r\nq1\td2\t0\r\nq2\td1\t1\r\n",
        "q1\td1\t2\nq1\td2\t0\nq2\td1\t1\nq2\td1\t1\n"}) {
    const auto qrels = read_qrels(folder.write("qrels", text));
    EXPECT_THAT(qrels.qids, ElementsAre("q1", "q2")) << text;
    EXPECT_EQ(qrels.grades.at("q1").at("d1"), 2) << text;
    EXPECT_EQ(qrels.grades.at("q1").at("d2"), 0) << text;
    EXPECT_EQ(qrels.grades.at("q2").at("d1"), 1) << text;
  }
  const auto negative = read_qrels(folder.write("n", "q 0 d -1\nq 0 e 1e+8\n"));
  EXPECT_EQ(negative.grades.at("q").at("d"), -1);
  EXPECT_EQ(negative.grades.at("q").at("e"), 100000000);
  const auto blanks = read_qrels(folder.write("b", "my q\tmy d\t1\n"));
  EXPECT_EQ(blanks.grades.count("q"), 0u);
}

TEST(Qrels, ThatCannotBeReadAreRefusedWithTheLine) {
  const TestFolder folder;
  const auto message = [&](const std::string& first, const std::string& line) {
    const auto path = folder.write("q", first + line + "\n");
    const auto text = error_of(ErrorKind::kInvalidInput, [&] { read_qrels(path); });
    EXPECT_THAT(text, HasSubstr("q:2"));
    return text;
  };
  EXPECT_THAT(message("q 0 d 1\n", "q 0 d"), HasSubstr("four"));
  EXPECT_THAT(message("q 0 d 1\n", "q 0 my d 1"), HasSubstr("blanks"));
  EXPECT_THAT(message("q 0 d 1\n", "q 0 e 1.5"), HasSubstr("whole"));
  EXPECT_THAT(message("q 0 d 1\n", "q 0 e 0x37"), HasSubstr("whole"));
  EXPECT_THAT(message("q 0 d 1\n", "q 0 d 2"), HasSubstr("before"));
  EXPECT_THAT(message("query-id\tcorpus-id\tscore\n", "q\td"), HasSubstr("three"));
}

TEST(RunWriter, WritesScoresThatFallStrictlyAsFloats) {
  const float smallest = std::numeric_limits<float>::min();
  const std::vector<Hit> hits = {{"a", 1e300},    {"b", 1e300},      {"c", 5.0},  {"d", 5.0},
                                 {"e", 5.0},      {"f", 5.0 - 1e-9}, {"g", 9.0},  {"h", smallest},
                                 {"i", smallest}, {"j", 0.0},        {"k", -0.0}, {"l", 1e-42},
                                 {"m", -1.0},     {"n", -1.0}};
  std::string text;
  append_trec_lines(text, "q", hits, "tag");
  std::istringstream in(text);
  std::string qid, q0, docid, tag, score_text;
  int rank = 0;
  size_t i = 0;
  float last = std::numeric_limits<float>::infinity();
  double last_double = last;
  while (in >> qid >> q0 >> docid >> rank >> score_text >> tag) {
    EXPECT_EQ(docid, hits[i].docid);
    EXPECT_EQ(rank, static_cast<int>(++i));
    const float score = std::strtof(score_text.c_str(), nullptr);
    EXPECT_TRUE(score == 0 || std::isnormal(score)) << score_text;
    EXPECT_LT(score, last) << docid;
    EXPECT_LT(std::strtod(score_text.c_str(), nullptr), last_double) << docid;
    last = score;
    last_double = std::strtod(score_text.c_str(), nullptr);
  }
  EXPECT_EQ(i, hits.size());
  EXPECT_THAT(text, HasSubstr("q Q0 c 3 5 tag\n"));
}

TEST(RunWriter, GivesBackWhatItWroteAndRefusesBlanksInIds) {
  const TestFolder folder;
  data::Run run;
  run.qids = {"q2", "q1"};
  run.hits["q2"] = {{"x", 3.5}, {"y", 3.5}};
  run.hits["q1"] = {{"z", -2}};
  const auto path = folder.path() + "/out.txt";
  write_run(path, run);
  const auto again = read_run(path);
  EXPECT_EQ(again.qids, run.qids);
  EXPECT_EQ(again.hits.at("q2")[0].score, 3.5);
  EXPECT_LT(again.hits.at("q2")[1].score, 3.5);
  EXPECT_EQ(again.tag, "erank");
  run.hits["q1"][0].docid = "a b";
  EXPECT_THAT(error_of(ErrorKind::kInvalidInput, [&] { write_run(path, run); }),
              HasSubstr("'a b' holds a blank"));
  EXPECT_EQ(read_run(path).qids.size(), 2u) << "the old file must survive";
}

TEST(Candidates, KeepOrderAndOptionalScores) {
  const TestFolder folder;
  const auto lists =
      read_candidates(folder.write("c.jsonl",
                                   "{\"qid\": \"1\", \"query\": \"q\", \"hits\": [{\"docid\": "
                                   "\"b\", \"rank\": 1, \"score\": 2.5, "
                                   "\"text\": \"x\"}, {\"docid\": 4, \"text\": \"y\", \"title\": "
                                   "\"T\"}, {\"docid\": \"b\", \"text\": "
                                   "\"x\"}]}\n{\"query\": \"none\", \"hits\": []}\n"));
  ASSERT_EQ(lists.size(), 2u);
  ASSERT_EQ(lists[0].candidates.size(), 2u);
  EXPECT_EQ(lists[0].candidates[0].score, 2.5);
  EXPECT_EQ(lists[0].candidates[1].document.id, "4");
  EXPECT_EQ(lists[0].candidates[1].document.text, "T y");
  EXPECT_FALSE(lists[0].candidates[1].score.has_value());
  EXPECT_EQ(lists[1].query.id, "2");
}

TEST(Candidates, OfTheWrongShapeAreRefused) {
  const TestFolder folder;
  const auto message = [&](const std::string& text) {
    const auto path = folder.write("c.jsonl", text);
    return error_of(ErrorKind::kInvalidInput, [&] { read_candidates(path); });
  };
  EXPECT_THAT(message("{\"qid\":\"1\",\"query\":\"q\"}"), HasSubstr("'hits'"));
  EXPECT_THAT(message("{\"qid\":\"1\",\"query\":\"q\",\"hits\":[{\"text\":\"x\"}]}"),
              HasSubstr("docid"));
  EXPECT_THAT(message("{\"qid\":\"1\",\"query\":\"q\",\"hits\":[{\"docid\":\"x\"}]}"),
              HasSubstr("no text"));
  EXPECT_THAT(message("{\"qid\":\"1\",\"query\":\"q\",\"hits\":[3]}"), HasSubstr("hits[0]"));
  EXPECT_THAT(message("{\"qid\":\"1\",\"query\":\"q\",\"hits\":[{\"docid\":\"x\",\"text\":\"a\"},"
                      "{\"docid\":\"x\",\"text\":\"b\"}]}"),
              HasSubstr("different"));
  EXPECT_THAT(message("{\"qid\":\"1\",\"query\":\"q\",\"hits\":[]}\n{\"qid\":\"1\",\"query\":\"r\","
                      "\"hits\":[]}"),
              HasSubstr("line 1"));
}

TEST(Candidates, OfAPipeAreGivenBeforeTheNextIsWritten) {
  const TestFolder folder;
  const std::string path = folder.path("pipe");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  std::vector<std::string> given;
  std::promise<void> first;
  std::future<void> reading;
  {
    reading = std::async(std::launch::async, [&] {
      for_each_candidates(path, {}, [&](CandidateList list, const std::string& where) {
        given.push_back(where.substr(where.rfind(':')) + " " + list.query.id);
        if (given.size() == 1) first.set_value();
      });
    });
    std::ofstream pipe(path);
    pipe << "\n{\"qid\": \"a\", \"query\": \"q\", \"hits\": []}\n" << std::flush;
    ASSERT_EQ(first.get_future().wait_for(std::chrono::seconds(60)), std::future_status::ready);
    pipe << "{\"qid\": \"a\", \"query\": \"q\"," << std::flush << "\"hits\": []}" << std::flush;
  }
  reading.get();
  EXPECT_THAT(given, ElementsAre(":2 a", ":3 a"));
}

TEST(BeirFolders, NameWhatTheyHold) {
  const TestFolder folder;
  const auto corpus = folder.write("b/corpus.jsonl.gz", "");
  const auto queries = folder.write("b/queries.jsonl", "");
  const auto test = folder.write("b/qrels/test.tsv", "");
  const auto dev = folder.write("b/qrels/dev.tsv", "");
  const auto found = find_beir(folder.path() + "/b");
  EXPECT_EQ(found.corpus, corpus);
  EXPECT_EQ(found.queries, queries);
  EXPECT_EQ(found.qrels, (std::map<std::string, std::string>{{"dev", dev}, {"test", test}}));
  error_of(ErrorKind::kNotFound, [&] { find_beir(folder.path()); });
  error_of(ErrorKind::kNotFound, [&] { find_beir(folder.path() + "/none"); });
}

TEST(RealFiles, OfManyCollectionsAreRead) {
  const auto adi = erank::testing::shared_data("glasgow/adi");
  if (adi.empty()) GTEST_SKIP() << "glasgow/adi is not here";
  EXPECT_EQ(read_queries(adi + "/queries.jsonl").size(), 35u);
  const auto qrels = read_qrels(adi + "/qrels.txt");
  size_t judgements = 0;
  for (const auto& [qid, grades] : qrels.grades) judgements += grades.size();
  EXPECT_EQ(judgements, 170u);
  const auto nfcorpus = erank::testing::shared_data("beir/nfcorpus");
  if (nfcorpus.empty()) GTEST_SKIP() << "beir/nfcorpus is not here";
  const auto tsv = read_qrels(nfcorpus + "/qrels/test.tsv");
  const auto trec = read_qrels(nfcorpus + "/qrels.test.trec.txt");
  EXPECT_EQ(tsv.qids.size(), 323u);
  EXPECT_EQ(tsv.grades, trec.grades);
}

}  // namespace
}  // namespace erank::data
