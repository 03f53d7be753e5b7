#include "erank/data/results.h"

#include <gmock/gmock.h>

#include "erank/base/error.h"
#include "tests/test_folder.h"

namespace erank::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const base::Error& e) {
    return e.what();
  }
  return "(accepted)";
}

TEST(Results, OfJsonLinesKeepTheOrderAndTheDetails) {
  const TestFolder folder;
  const auto results = read_results(folder.write(
      "scored.jsonl",
      "{\"qid\":\"q\",\"docid\":\"a\",\"rank\":1,\"score\":7.5,\"reasoning\":\"why\","
      "\"prompt_tokens\":9,\"new_tokens\":2}\n\n{\"qid\":\"q\",\"docid\":\"z\",\"score\":7.5}\n"
      "{\"qid\":\"q\",\"docid\":3,\"score\":null,\"flags\":[\"not_reranked\"]}\n"
      "{\"qid\":\"p\",\"docid\":\"a\",\"score\":0}\n"));
  EXPECT_TRUE(results.is_jsonl);
  EXPECT_THAT(results.qids, ElementsAre("q", "p"));
  const auto& list = results.results.at("q");
  ASSERT_EQ(list.size(), 3u);
  EXPECT_EQ(list[0].reasoning, "why");
  EXPECT_EQ(list[0].prompt_tokens, 9);
  EXPECT_EQ(list[1].new_tokens, std::nullopt);
  EXPECT_EQ(list[2].docid, "3");
  EXPECT_EQ(list[2].score, std::nullopt);
  const data::Run run = results.run();
  const auto& hits = run.hits.at("q");
  EXPECT_THAT(std::vector<double>({hits[0].score, hits[1].score, hits[2].score}),
              ElementsAre(2, 1, 0));
}

TEST(Results, OfATrecRunAreItsScores) {
  const TestFolder folder;
  const auto results = read_results(folder.write("a.run", "q Q0 d 1 2.5 t\nq Q0 e 2 2.5 t\n"));
  EXPECT_FALSE(results.is_jsonl);
  EXPECT_EQ(results.results.at("q")[1].score, 2.5);
  EXPECT_EQ(results.run().hits.at("q")[0].score, 2.5);
  EXPECT_THAT(read_results(folder.write("b.run", "")).qids, IsEmpty());
}

TEST(Results, RefuseWhatIsNoneWithTheLine) {
  const TestFolder folder;
  const auto said = [&](const std::string& text) {
    const std::string path = folder.write("a", text);
    return refusal([&] { read_results(path); });
  };
  EXPECT_THAT(said("{\"qid\":\"q\",\"docid\":\"d\",\"score\":1}\n{\"qid\":\"q\"}\n"),
              HasSubstr(":2: 'docid' is missing"));
  EXPECT_THAT(said("{\"qid\":\"q\",\"docid\":\"d\",\"score\":\"x\"}\n"), HasSubstr("score"));
  EXPECT_THAT(said("{\"qid\":\"q\",\"docid\":\"d\"}\n{\"qid\":\"q\",\"docid\":\"d\"}\n"),
              HasSubstr(":2: document 'd' of query 'q' comes twice"));
  EXPECT_THAT(said("{\"qid\":\"q\",\"docid\":\"d\"}\nq Q0 e 1 2 t\n"), HasSubstr(":2"));
  EXPECT_THAT(said("q Q0 d 1 x t\n"), HasSubstr("read_run"));
}

}  // namespace
}  // namespace erank::data
