// The forms in which people hold collections: TREC topics, MS MARCO, BRIGHT, FollowIR; and what is
// made of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/data/convert.h"
#include "erank/data/records.h"
#include "tests/data/errors.h"
#include "tests/shared_data.h"
#include "tests/test_folder.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr const char* kTopics =
    "\n<top>\n\n<num> Number: 301 \n<title> International   Organized Crime \n\n"
    "<desc> Description: \nIdentify organizations <b>and</b> a < b.\n\n"
    "<narr> Narrative: \nA relevant document\nmust say so.\n\n</top>\n\n"
    "<TOP><NUM>302</NUM><TITLE>Topic: Poliomyelitis</TITLE></TOP>\n"
    "<top>\n<num> Number: MB03\n<desc> Description:\nonly this\n</top>\n";

std::vector<base::Json> json_of(const std::string& path) {
  std::vector<base::Json> out;
  for_each_line(
      path, [&](std::string_view line, int64_t) { out.push_back(base::parse_json(line, path)); });
  return out;
}

TEST(TrecTopics, AreQueriesUnderAnyName) {
  const TestFolder folder;
  for (const char* name : {"topics.txt", "topics.301-303", "t.sgml"}) {
    const auto queries = read_queries(folder.write(name, kTopics));
    ASSERT_EQ(queries.size(), 3u) << name;
    EXPECT_EQ(queries[0].id + "=" + queries[0].text, "301=International Organized Crime");
    EXPECT_EQ(queries[1].id + "=" + queries[1].text, "302=Poliomyelitis");
    EXPECT_EQ(queries[2].id + "=" + queries[2].text, "MB03=only this");
  }
  // As documents such a .txt is plain text.
  EXPECT_EQ(read_documents(folder.write("d.txt", "<top>\nx\n")).size(), 2u);
  const auto refused = [&](const std::string& text) {
    return error_of(ErrorKind::kInvalidInput, [&] { read_queries(folder.write("t.txt", text)); });
  };
  EXPECT_THAT(refused("<top>\n<title> x\n</top>\n"), HasSubstr("t.txt:1: a topic without <num>"));
  EXPECT_THAT(refused("<top>\n<num> 1\n</top>\n<top>\n<num> 2\n"),
              HasSubstr("t.txt:4: a topic without its </top>"));
  EXPECT_THAT(refused("<top>\n<num> 1\n</top>\nmore\n"), HasSubstr("t.txt:4: text outside"));
}

TEST(MsMarco, DocumentsPassagesAndCandidatesAreRead) {
  const TestFolder folder;
  const auto documents = read_documents(folder.write(
      "docs.tsv", "D1\thttps://a.b/c\tThe title\tThe body\twith a tab\nD2\thttp://x\t\tBody\n"));
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].text, "The title The body\twith a tab");
  EXPECT_EQ(documents[1].text, "Body");
  const auto lists = read_candidates(folder.write(
      "top1000.tsv", "1\ta\twhy\tone\n2\tb\thow\ttwo\n1\tb\twhy\ttwo\n1\ta\twhy\tone\n"));
  ASSERT_EQ(lists.size(), 2u);
  EXPECT_EQ(lists[0].query.id + lists[0].query.text, "1why");
  ASSERT_EQ(lists[0].candidates.size(), 2u);
  EXPECT_EQ(lists[0].candidates[1].document.text, "two");
  EXPECT_THAT(
      error_of(ErrorKind::kInvalidInput,
               [&] { read_candidates(folder.write("t", "1\ta\twhy\tone\n1\tb\thow\ttwo\n")); }),
      HasSubstr("t:2: query '1' has another text"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidInput,
                       [&] { read_candidates(folder.write("u", "1\ta\twhy\tone\n1\tb\n")); }),
              HasSubstr("u:2: 2 columns, expected four"));
}

TEST(Judgements, OfJsonAreReadByTheirKeysOrGoldIds) {
  const TestFolder folder;
  const Qrels rows =
      read_qrels(folder.write("q.jsonl",
                              "{\"query-id\": \"q\", \"corpus-id\": \"d\", \"score\": 2}\n"
                              "{\"query-id\": \"q\", \"corpus-id\": 7, \"score\": \"1.0\"}\n"));
  EXPECT_EQ(rows.grades.at("q").at("d"), 2);
  EXPECT_EQ(rows.grades.at("q").at("7"), 1);
  const Qrels gold = read_qrels(folder.write(
      "g.json", "[{\"id\": \"0\", \"query\": \"why\", \"gold_ids\": [\"a b\", \"c\"]}]"));
  EXPECT_EQ(gold.grades.at("0").at("a b"), 1);
  EXPECT_THAT(
      error_of(ErrorKind::kInvalidInput,
               [&] { read_qrels(folder.write("x", "{\"qid\": \"q\", \"docid\": \"d\"}")); }),
      HasSubstr("x:1: grade '' is not a whole number"));
}

TEST(Conversion, WritesABeirFolderThatSaysTheSame) {
  const TestFolder folder;
  const CollectionFiles files{
      folder.write("c.csv", "id,title,text\nd1,Sky,\"It is, blue\"\nd2,,x\n"),
      folder.write("topics", kTopics),
      "",
      {{"dev", folder.write("q", "301 0 d2 1\n301 0 d1 2\n302 0 d1 0\n")}}};
  const std::string out = folder.path("beir");
  const ConvertReport report = convert_to_beir(files, "", out, false);
  EXPECT_EQ(report.documents, 2);
  EXPECT_EQ(report.queries, 3);
  EXPECT_EQ(report.judgements, 3);
  const BeirFolder found = find_beir(out);
  EXPECT_EQ(json_of(found.corpus).at(0),
            base::Json::parse(R"({"_id": "d1", "title": "Sky", "text": "It is, blue"})"));
  const auto queries = json_of(found.queries);
  EXPECT_EQ(queries.at(0)["text"], "International Organized Crime");
  EXPECT_EQ(queries.at(0)["metadata"]["desc"], "Identify organizations <b>and</b> a < b.");
  EXPECT_EQ(queries.at(0)["metadata"]["narr"], "A relevant document must say so.");
  EXPECT_FALSE(queries.at(2).contains("metadata"));
  EXPECT_EQ(read_qrels(found.qrels.at("dev")).grades, read_qrels(files.qrels.at("dev")).grades);
  EXPECT_THAT(error_of(ErrorKind::kInvalidInput, [&] { convert_to_beir(files, "", out, false); }),
              HasSubstr("exists"));
  EXPECT_EQ(convert_to_beir(files, "", out, true).queries, 3);
}

TEST(Conversion, KeepsInstructionsAndSaysWhatIsExcluded) {
  const TestFolder folder;
  const auto queries = folder.write(
      "q.jsonl",
      "{\"qid\": \"1-changed\", \"query\": \"Who?\", \"instruction\": \"Only women.\"}\n"
      "{\"id\": \"2\", \"query\": \"What?\", \"reasoning\": \"long\", \"gold_ids\": [\"a\"], "
      "\"excluded_ids\": [\"b\"]}\n"
      "{\"id\": \"3\", \"query\": \"Why?\", \"excluded_ids\": [\"N/A\"]}\n");
  const ConvertReport report = convert_to_beir({"", queries, "", {}}, "", folder.path("o"), false);
  EXPECT_EQ(report.with_instruction, 1);
  EXPECT_EQ(report.with_exclusions, 1);
  const auto lines = json_of(folder.path("o/queries.jsonl"));
  EXPECT_EQ(lines.at(0)["text"], "Who? Only women.");
  EXPECT_EQ(lines.at(1)["metadata"]["reasoning"], "long");
  EXPECT_EQ(lines.at(1)["metadata"]["excluded_ids"][0], "b");
}

TEST(RealFiles, OfBrightAndFollowIrAreConverted) {
  const std::string bright = erank::testing::shared_data("bright");
  const std::string followir = erank::testing::shared_data("followir/core17.queries.jsonl");
  if (bright.empty() || followir.empty()) GTEST_SKIP() << "bright or followir is not here";
  const TestFolder folder;
  const std::string queries = folder.path("leetcode.jsonl");
  ASSERT_EQ(std::system(("xz -dc " + bright + "/queries/leetcode.jsonl.xz > " + queries).c_str()),
            0);
  convert_to_beir({"", queries, "", {{"test", queries}}}, "", folder.path("o"), false);
  EXPECT_EQ(read_qrels(folder.path("o/qrels/test.tsv")).grades,
            read_qrels(bright + "/qrels/leetcode.txt").grades);
  EXPECT_EQ(read_queries(folder.path("o/queries.jsonl")).size(), read_queries(queries).size());
  const auto report = convert_to_beir({"", followir, "", {}}, "", folder.path("f"), false);
  EXPECT_EQ(report.queries, 40);
  EXPECT_EQ(report.with_instruction, 40);
}

}  // namespace
}  // namespace erank::data
