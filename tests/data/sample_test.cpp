#include "erank/data/sample.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <set>
#include <span>
#include <string>

#include "erank/base/random.h"
#include "tests/data/errors.h"
#include "tests/test_folder.h"

namespace erank::data {
namespace {

// Of 300 documents, the relevant ones at the given ranks (from 1).
std::vector<int> grades_of(const std::vector<std::pair<size_t, int>>& relevant) {
  std::vector<int> grades(300, 0);
  for (const auto& [rank, grade] : relevant) grades[rank - 1] = grade;
  return grades;
}

std::vector<size_t> draw(std::span<const int> grades, int64_t count, uint64_t seed) {
  return sample_documents(sample_kinds(grades, 1, grades.size()), count, seed);
}

struct Counts {
  int hard = 0, medium = 0, easy = 0, relevant = 0;
};

Counts count(const std::vector<size_t>& chosen, const std::vector<int>& grades) {
  Counts counts;
  for (const size_t i : chosen)
    ++(grades[i] > 0 ? counts.relevant
       : i < 10      ? counts.hard
       : i < 100     ? counts.medium
                     : counts.easy);
  return counts;
}

TEST(SampledDocuments, AreTheBestOneTheFirstTenAndHalvesOfTheOthers) {
  const auto grades = grades_of({{3, 1}, {150, 2}, {200, 1}});
  const auto chosen = draw(grades, 20, 5);
  ASSERT_EQ(chosen.size(), 20u);
  EXPECT_TRUE(std::is_sorted(chosen.begin(), chosen.end()));
  EXPECT_EQ(std::set<size_t>(chosen.begin(), chosen.end()).size(), 20u);
  EXPECT_EQ(std::count(chosen.begin(), chosen.end(), 149u), 1);  // the largest grade
  const Counts counts = count(chosen, grades);
  EXPECT_EQ(counts.relevant, 1);
  EXPECT_EQ(counts.hard, 9);  // rank 3 is relevant
  EXPECT_EQ(counts.medium, 5);
  EXPECT_EQ(counts.easy, 5);
}

TEST(SampledDocuments, TakeOthersWhereAKindHasTooFew) {
  std::vector<int> grades(60, 0);
  grades[0] = grades[1] = 3;
  const Counts counts = count(draw(grades, 30, 1), grades);
  EXPECT_EQ(counts.relevant, 1);
  EXPECT_EQ(counts.hard, 8);
  EXPECT_EQ(counts.medium, 21);
  // Nearly all are relevant.
  std::vector<int> many(30, 1);
  many[7] = 0;
  const auto chosen = draw(many, 12, 1);
  EXPECT_EQ(chosen.size(), 12u);
  EXPECT_EQ(count(chosen, many).hard, 1);
}

TEST(SampledDocuments, AreAllOfAShortListAndDependOnTheSeedAlone) {
  const auto grades = grades_of({{1, 1}});
  EXPECT_EQ(draw({grades.data(), 20}, 20, 1).size(), 20u);
  EXPECT_EQ(draw({grades.data(), 3}, 20, 1), (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(draw(grades, 20, 1), draw(grades, 20, 1));
  EXPECT_NE(draw(grades, 20, 1), draw(grades, 20, 2));
}

TEST(SampledDocuments, MediumOnesAreDrawnEvenly) {
  const auto grades = grades_of({{1, 1}});
  std::vector<int> times(300, 0);
  constexpr int kDraws = 3000;
  for (uint64_t seed = 0; seed < kDraws; ++seed)
    for (const size_t i : draw(grades, 20, seed)) ++times[i];
  for (size_t i = 10; i < 100; ++i) EXPECT_NEAR(times[i], kDraws * 5 / 90.0, 60) << i;
  for (size_t i = 100; i < 300; ++i) EXPECT_NEAR(times[i], kDraws * 5 / 200.0, 45) << i;
}

TEST(SampledDocuments, TakeOwnNegativesAfterTheHardOnesAndRankedOnesByRank) {
  std::vector<int> grades(400, 0);
  std::vector<char> own(400, 0);
  grades[0] = 1;
  own[5] = own[150] = own[250] = own[390] = own[391] = 1;
  const auto kinds = sample_kinds(grades, 1, 390, own);
  EXPECT_EQ(kinds[0], SampleKind::kPositive);
  EXPECT_EQ(kinds[5], SampleKind::kHard);  // of the first ten ranks all the same
  EXPECT_EQ(kinds[9], SampleKind::kHard);
  EXPECT_EQ(kinds[10], SampleKind::kMedium);
  EXPECT_EQ(kinds[99], SampleKind::kMedium);
  EXPECT_EQ(kinds[100], SampleKind::kEasy);
  EXPECT_EQ(kinds[150], SampleKind::kOwn);
  EXPECT_EQ(kinds[391], SampleKind::kOwn);
  const auto chosen = sample_documents(kinds, 20, 7);
  ASSERT_EQ(chosen.size(), 20u);
  std::array<int, kNumSampleKinds> of_kind{};
  for (const size_t i : chosen) ++of_kind[static_cast<size_t>(kinds[i])];
  // 1 positive, 9 hard (rank 1 is the positive one), 4 own; of the 6 left 3 are medium and 3 easy.
  EXPECT_THAT(of_kind, ::testing::ElementsAre(1, 4, 9, 3, 3, 0));
  // With many own negatives there is room for some only, and the hard ones stay.
  std::fill(own.begin() + 100, own.end(), 1);
  const auto many = sample_kinds(grades, 1, 390, own);
  of_kind = {};
  for (const size_t i : sample_documents(many, 20, 7)) ++of_kind[static_cast<size_t>(many[i])];
  EXPECT_THAT(of_kind, ::testing::ElementsAre(1, 10, 9, 0, 0, 0));
}

// A corpus of 1,200 documents d0 to d1199, two queries, and a run whose best hit is d0.
class SampledCandidates : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string corpus, run;
    for (int i = 0; i < 1200; ++i)
      corpus += "{\"_id\": \"d" + std::to_string(i) + "\", \"text\": \"text " + std::to_string(i) +
                "\"}\n";
    for (const char* qid : {"q1", "q2"})
      for (int i = 0; i < 1100; ++i)
        run += std::string(qid) + " Q0 d" + std::to_string(i) + " " + std::to_string(i + 1) + " " +
               std::to_string(2000 - i) + " bm25\n";
    corpus_ = folder_.write("corpus.jsonl", corpus);
    run_ = folder_.write("run.txt", run);
    queries_ = folder_.write("queries.jsonl",
                             "{\"_id\": \"q2\", \"text\": \"second\"}\n"
                             "{\"_id\": \"q1\", \"text\": \"first\"}\n"
                             "{\"_id\": \"q3\", \"text\": \"third\"}\n");
  }
  CandidateSample sample(const std::string& qrels, const SampleOptions& options = {}) const {
    return sample_candidates(queries_, corpus_, read_qrels(folder_.write("qrels", qrels)),
                             read_run(run_), options, {});
  }
  TestFolder folder_;
  std::string corpus_, run_, queries_;
};

TEST_F(SampledCandidates, HaveTheExactCountsOfEachKind) {
  // q1: a positive at rank 50; own negatives at ranks 3, 700 and none. q2: its positive has no
  // rank.
  const auto [lists, report] =
      sample("q1 0 d49 2\nq1 0 d2 0\nq1 0 d699 0\nq1 0 d1150 0\nq1 0 d60 1\nq2 0 d1199 1\n");
  ASSERT_EQ(lists.size(), 2u);
  EXPECT_EQ(lists[0].query.id, "q2");  // the queries' own order
  EXPECT_EQ(lists[1].query.text, "first");
  for (const auto& list : lists) {
    ASSERT_EQ(list.candidates.size(), 20u);
    std::set<std::string> ids;
    double last = 1e9;
    for (const auto& c : list.candidates) {
      ids.insert(c.document.id);
      EXPECT_EQ(c.document.text, "text " + c.document.id.substr(1));
      if (!c.score) continue;
      EXPECT_EQ(*c.score, 2000 - std::stoi(c.document.id.substr(1)));
      EXPECT_LT(*c.score, last);
      last = *c.score;
      EXPECT_GT(*c.score, 1000) << "below rank 1,000";
    }
    EXPECT_EQ(ids.size(), 20u);
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(ids.contains("d" + std::to_string(i)));
  }
  const auto has = [&](size_t list, const std::string& id) {
    return std::any_of(lists[list].candidates.begin(), lists[list].candidates.end(),
                       [&](const auto& c) { return c.document.id == id; });
  };
  EXPECT_TRUE(has(1, "d49") && has(1, "d699") && has(1, "d1150"));
  EXPECT_FALSE(has(1, "d60"));  // the other relevant one
  EXPECT_EQ(lists[0].candidates.back().document.id, "d1199");
  EXPECT_FALSE(lists[0].candidates.back().score.has_value());
  // q1: 1 + 10 hard (of them one own) + 2 own + 4 medium + 3 easy; q2: 1 + 10 + 5 medium + 4 easy.
  EXPECT_THAT(report.of_kind, ::testing::ElementsAre(2, 2, 20, 9, 7, 0));
  EXPECT_EQ(report.queries, 2);
  EXPECT_EQ(report.short_lists + report.without_positive + report.without_hits, 0);
}

TEST_F(SampledCandidates, DependOnTheSeedAloneAndCountWhatIsLeftOut) {
  const std::string qrels = "q1 0 d49 2\nq2 0 d1 0\nq3 0 d1 1\nq1 0 nowhere 1\n";
  const auto ids_of = [](const CandidateSample& sample) {
    std::vector<std::string> ids;
    for (const auto& list : sample.lists)
      for (const auto& c : list.candidates) ids.push_back(c.document.id);
    return ids;
  };
  const auto one = sample(qrels, {.seed = 3});
  EXPECT_EQ(ids_of(one), ids_of(sample(qrels, {.seed = 3})));
  EXPECT_NE(ids_of(one), ids_of(sample(qrels, {.seed = 4})));
  EXPECT_EQ(one.report.queries, 1);
  EXPECT_EQ(one.report.without_positive, 1);
  EXPECT_EQ(one.report.without_hits, 1);
  EXPECT_EQ(one.report.lost.of_no_document.count, 1);
  const auto small = sample(qrels, {.documents = 2000, .max_rank = 30});
  EXPECT_EQ(small.lists.at(0).candidates.size(), 31u);
  EXPECT_EQ(small.report.short_lists, 1);
}

TEST_F(SampledCandidates, OfWhatDoesNotFitAreRefused) {
  EXPECT_THAT(error_of(base::ErrorKind::kInvalidInput, [&] { sample("q1 0 d1 0\n"); }),
              ::testing::HasSubstr("do the ids agree"));
  folder_.write("run.txt", "q1 Q0 d1 1 2 t\nq1 Q0 e1 2 1 t\n");
  EXPECT_THAT(
      error_of(base::ErrorKind::kInvalidInput, [&] { sample("q1 0 d1 1\n"); }),
      ::testing::HasSubstr("1 of the run's hits are not in the corpus, the first of them 'e1'"));
  folder_.write("run.txt", "q9 Q0 d1 1 2 t\n");
  EXPECT_THAT(error_of(base::ErrorKind::kInvalidInput, [&] { sample("q1 0 d1 1\n"); }),
              ::testing::HasSubstr("'q9'"));
}

}  // namespace
}  // namespace erank::data
