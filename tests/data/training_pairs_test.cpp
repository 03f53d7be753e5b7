#include "erank/data/training_pairs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"

namespace erank::data {
namespace {

using ::testing::HasSubstr;

std::vector<TrainingPair> read(const std::string& bytes) {
  const std::string path = ::testing::TempDir() + "pairs.jsonl";
  base::write_file_atomic(path, bytes);
  return read_training_pairs(path);
}

// `more` after the keys that every pair has.
TrainingPair pair_with(const std::string& more) {
  return read(R"({"qid": "q", "docid": "d", "query": "x", "text": "y", )" + more + "}\n").at(0);
}

PairScores read_scores(const std::string& bytes) {
  const std::string path = ::testing::TempDir() + "scores.jsonl";
  base::write_file_atomic(path, bytes);
  return read_pair_scores(path);
}

std::string fault(const std::string& bytes) {
  try {
    read(bytes);
    return "";
  } catch (const base::Error& e) {
    EXPECT_EQ(e.kind(), base::ErrorKind::kInvalidInput);
    return e.what();
  }
}

std::string fault_with(const std::string& more) {
  return fault(R"({"qid": "q", "docid": "d", "query": "x", "text": "y", )" + more + "}\n");
}

TEST(TrainingPairs, AreReadOnTheScaleThatIsAskedFor) {
  const std::string path = ::testing::TempDir() + "scale.jsonl";
  const auto read_on = [&](int most, const std::string& more) {
    base::write_file_atomic(
        path, R"({"qid": "q", "docid": "d", "query": "x", "text": "y", )" + more + "}\n");
    return read_training_pairs(path, nullptr, nullptr, most).at(0);
  };
  EXPECT_EQ(read_on(3, R"("score": 2.5)").score, 3);
  const auto pair = read_on(3, R"("distribution": [0, 0.5, 0.25, 0.25])");
  EXPECT_EQ(pair.score, 1);
  EXPECT_EQ((*pair.distribution)[3], 0.25);
  EXPECT_EQ((*pair.distribution)[10], 0);
  EXPECT_EQ(read_on(1, R"("score": 1)").score, 1);
  for (const char* odd : {R"("score": 4)", R"("distribution": [0.5, 0.5])",
                          R"("distribution": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])"})
    EXPECT_THROW(read_on(3, odd), base::Error) << odd;
  base::write_file_atomic(path, R"({"qid": "q", "docid": "d", "integer": 2})");
  EXPECT_EQ(read_pair_scores(path, nullptr, 3).at("q").at("d"), 2);
  EXPECT_THROW(read_pair_scores(path, nullptr, 1), base::Error);
}

TEST(TrainingPairs, AreReadWithEveryKey) {
  const auto pairs = read(
      "{\"qid\": 7, \"docid\": \"d\", \"query\": \"why\", \"text\": \"Because \\u00e9.\", "
      "\"score\": 8, "
      "\"thought\": \"Hm.\", \"instruction\": \"Find it.\", \"anything\": [1]}\n\n"
      "{\"qid\": \"q2\", \"docid\": 3, \"query\": \"\", \"text\": \"\", \"score\": 0, "
      "\"thought\": null, \"instruction\": null, \"distribution\": null}");
  ASSERT_EQ(pairs.size(), 2u);
  EXPECT_EQ(pairs[0].line, 1);
  EXPECT_EQ(pairs[1].line, 3);
  EXPECT_EQ(pairs[0].qid, "7");
  EXPECT_EQ(pairs[0].docid, "d");
  EXPECT_EQ(pairs[0].query, "why");
  EXPECT_EQ(pairs[0].text, "Because \xc3\xa9.");
  EXPECT_EQ(pairs[0].score, 8);
  EXPECT_EQ(pairs[0].thought, "Hm.");
  EXPECT_EQ(pairs[0].instruction, "Find it.");
  EXPECT_EQ(pairs[0].distribution, std::nullopt);
  EXPECT_EQ(pairs[1].docid, "3");
  EXPECT_EQ(pairs[1].thought, std::nullopt);
  EXPECT_EQ(pairs[1].instruction, std::nullopt);
}

TEST(TrainingPairs, ScoresAreRoundedHalvesUp) {
  const std::pair<const char*, int> cases[] = {{"0", 0},      {"0.49", 0}, {"0.5", 1}, {"2.5", 3},
                                               {"9.4999", 9}, {"9.5", 10}, {"1e1", 10}};
  for (const auto& [text, score] : cases)
    EXPECT_EQ(pair_with(base::str("\"score\": ", text)).score, score) << text;
}

TEST(TrainingPairs, DistributionsAreScaledToOneAndGiveAMissingScore) {
  const TrainingPair pair =
      pair_with(R"("distribution": [0, 0, 0.3, 0, 0, 0, 0, 0.3, 0, 0.2, 0.2005])");
  ASSERT_TRUE(pair.distribution);
  EXPECT_NEAR(std::accumulate(pair.distribution->begin(), pair.distribution->end(), 0.0), 1, 1e-15);
  EXPECT_NEAR((*pair.distribution)[10], 0.2005 / 1.0005, 1e-12);
  EXPECT_EQ(pair.score, 2);  // the lowest of equals
  EXPECT_EQ(pair_with(R"("score": 7, "distribution": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])").score, 7);
}

TEST(TrainingPairs, FaultsNameTheLineAndWhatIsWrong) {
  const std::string good = R"({"qid": "q", "docid": "d", "query": "x", "text": "y", "score": 1})";
  for (const char* key : {"qid", "docid", "query", "text"}) {
    base::Json without = base::parse_json(good, "");
    without.erase(key);
    EXPECT_THAT(fault("\n" + without.dump()), HasSubstr(base::str("'", key, "'"))) << key;
    EXPECT_THAT(fault("\n" + without.dump()), HasSubstr("pairs.jsonl:2")) << key;
    without[key] = base::Json::array();
    EXPECT_THAT(fault(without.dump()), HasSubstr(base::str("'", key, "'"))) << key;
  }
  for (const char* score : {"-0.1", "10.01", "1e300"})
    EXPECT_THAT(fault_with(base::str("\"score\": ", score)), HasSubstr("from 0 to 10")) << score;
  EXPECT_THAT(fault_with("\"score\": \"3\""), HasSubstr("'score'"));
  EXPECT_THAT(fault_with("\"score\": null"), HasSubstr("neither 'score' nor 'distribution'"));
  EXPECT_THAT(fault_with("\"score\": 1, \"thought\": 3"), HasSubstr("'thought'"));
  EXPECT_THAT(fault_with("\"score\": 1, \"instruction\": 3"), HasSubstr("'instruction'"));
  for (const char* q :
       {"1", "[1]", "[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]",
        "[-0.5, 1.5, 0, 0, 0, 0, 0, 0, 0, 0, 0]", "[0.5, 0.4, 0, 0, 0, 0, 0, 0, 0, 0, 0]",
        "[\"1\", 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"})
    EXPECT_THAT(fault_with(base::str("\"score\": 1, \"distribution\": ", q)),
                HasSubstr("11 probabilities"))
        << q;
  EXPECT_THAT(fault(good + "\n[1]\n"),
              HasSubstr("pairs.jsonl:2: a JSON array, expected an object"));
  EXPECT_THAT(fault(good + "\n{\"qid\": \"q\""), HasSubstr("pairs.jsonl:2"));
  EXPECT_THAT(fault("\n \n"), HasSubstr("no pair in it"));
  EXPECT_THROW(read_training_pairs("/nowhere/pairs.jsonl"), base::Error);
}

TEST(TrainingPairs, APairStandsOnceUnderEachInstruction) {
  const std::string pair = R"({"qid": "q", "docid": "d", "query": "x", "text": "y", "score": 1)";
  EXPECT_THAT(fault(pair + "}\n" + pair + "}\n"),
              HasSubstr("pairs.jsonl:2: query 'q' and document 'd'"));
  EXPECT_EQ(read(pair + "}\n" + pair + ", \"instruction\": \"other\"}\n").size(), 2u);
}

TEST(PairScores, AreTheIntegerOrElseTheScoreOfEachPair) {
  PairScores scores =
      read_scores(R"({"qid": "q", "docid": "a", "score": 7.25, "integer": 8, "rank": 1})"
                  "\n"
                  R"({"qid": "q", "docid": "b", "score": 2.5, "integer": null})"
                  "\n\n"
                  R"({"qid": 1, "docid": 2, "score": 0})"
                  "\n"
                  R"({"qid": "q", "docid": "c", "score": null, "integer": null})"
                  "\n");
  EXPECT_EQ(scores.size(), 2u);
  EXPECT_EQ(scores["q"].size(), 2u);
  EXPECT_EQ(scores["q"]["a"], 8);
  EXPECT_EQ(scores["q"]["b"], 2.5);
  EXPECT_EQ(scores["1"]["2"], 0);
}

TEST(PairScores, OfWrongFormAreRefusedWithTheirLine) {
  const auto refused = [](const std::string& bytes) -> std::string {
    try {
      read_scores(bytes);
      return "";
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), base::ErrorKind::kInvalidInput);
      return e.what();
    }
  };
  const std::string good = "{\"qid\": \"q\", \"docid\": \"a\", \"score\": 1}\n";
  EXPECT_THAT(refused(good + good), HasSubstr("scores.jsonl:2: query 'q' and document 'a'"));
  EXPECT_THAT(refused(R"({"qid": "q", "docid": "a", "score": 11})"),
              HasSubstr("'score' is 11, expected a number from 0 to 10"));
  EXPECT_THAT(refused(R"({"qid": "q", "docid": "a", "integer": "x"})"), HasSubstr("integer"));
  EXPECT_THAT(refused(R"({"docid": "a", "score": 1})"), HasSubstr("qid"));
  EXPECT_THAT(refused("3\n"), HasSubstr("scores.jsonl:1: a JSON number, expected an object"));
}

}  // namespace
}  // namespace erank::data
