#include "erank/data/document_lists.h"

#include <gmock/gmock.h>

#include "tests/data/errors.h"
#include "tests/test_folder.h"

namespace erank::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(DocumentLists, AreReadAndRefused) {
  const TestFolder folder;
  const auto changed =
      read_document_lists(folder.write("diff.jsonl",
                                       "{\"query-id\": 310, \"corpus-ids\": [\"a\", 7]}\n"
                                       "{\"query-id\": \"b\", \"corpus-ids\": []}\n"));
  EXPECT_EQ(changed.size(), 2u);
  EXPECT_THAT(changed.at("310"), ElementsAre("a", "7"));
  EXPECT_THAT(
      read_document_lists(folder.write("array", "[{\"query-id\": \"b\", \"corpus-ids\": [\"x\"]}]"))
          .at("b"),
      ElementsAre("x"));
  const auto ranked = read_document_lists(
      folder.write("top_ranked.jsonl",
                   "{\"qid\": 310, \"pid\": \"b\"}\n{\"qid\": \"311\", \"pid\": 7}\n"
                   "{\"qid\": \"310\", \"pid\": \"a\"}\n"));
  EXPECT_THAT(ranked.at("310"), ElementsAre("b", "a"));
  EXPECT_THAT(ranked.at("311"), ElementsAre("7"));
  const auto said = [&](const std::string& text) {
    const std::string path = folder.write("a", text);
    return error_of(base::ErrorKind::kInvalidInput, [&] { read_document_lists(path); });
  };
  EXPECT_THAT(said("{\"query-id\": \"a\"}\n"),
              HasSubstr("a:1: 'corpus-ids' is missing, expected a list of ids"));
  EXPECT_THAT(said("{\"query-id\": \"a\", \"corpus-ids\": [null]}\n"),
              HasSubstr("'corpus-ids' holds null, expected ids"));
  EXPECT_THAT(said("{\"corpus-ids\": []}\n"), HasSubstr("expected 'query-id', found 'corpus-ids'"));
  EXPECT_THAT(said("{\"qid\": \"a\", \"pid\": null}\n"),
              HasSubstr("'pid' holds null, expected ids"));
  EXPECT_THAT(said("7\n"), HasSubstr("expected an object"));
  EXPECT_THAT(said("{\"query-id\":1,\"corpus-ids\":[]}\n{\"query-id\":\"1\",\"corpus-ids\":[]}\n"),
              HasSubstr(":2: query '1' comes twice"));
}

TEST(ExcludedDocuments, AreThoseOfBrightsExamplesAndOfConvertedQueries) {
  const TestFolder folder;
  const auto lists = read_excluded_documents(
      folder.write("examples.jsonl",
                   "{\"id\": \"1\", \"query\": \"x\", \"excluded_ids\": [\"a b\", 7]}\n"
                   "{\"id\": \"2\", \"query\": \"y\", \"excluded_ids\": [\"N/A\"]}\n"
                   "{\"_id\": \"3\", \"text\": \"z\", \"metadata\": {\"excluded_ids\": [\"c\"]}}\n"
                   "{\"_id\": \"4\", \"text\": \"none\"}\n"));
  EXPECT_EQ(lists.size(), 3u);
  EXPECT_THAT(lists.at("1"), ElementsAre("a b", "7"));
  EXPECT_THAT(lists.at("2"), IsEmpty());
  EXPECT_THAT(lists.at("3"), ElementsAre("c"));

  data::Run run;
  run.hits["1"] = {{"7", 3}, {"x", 2}, {"a b", 1}, {"c", 0}};
  run.hits["9"] = {{"7", 3}};
  drop_documents(lists, run);
  ASSERT_EQ(run.hits.at("1").size(), 2u);
  EXPECT_EQ(run.hits.at("1")[0].docid, "x");
  EXPECT_EQ(run.hits.at("1")[1].docid, "c");
  EXPECT_EQ(run.hits.at("9").size(), 1u);

  const auto said = [&](const std::string& text) {
    const std::string path = folder.write("e", text);
    return error_of(base::ErrorKind::kInvalidInput, [&] { read_excluded_documents(path); });
  };
  EXPECT_THAT(read_excluded_documents(folder.write("none", "{\"id\": \"1\"}\n")), IsEmpty());
  EXPECT_THAT(said("{\"id\": \"1\", \"excluded_ids\": \"a\"}\n"),
              HasSubstr("e:1: 'excluded_ids' is string, expected a list of ids"));
}

}  // namespace
}  // namespace erank::data
