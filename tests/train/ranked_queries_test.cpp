#include "erank/train/ranked_queries.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "erank/base/random.h"

namespace erank::train {
namespace {

// Of 300 documents, the relevant ones at the given ranks (from 1).
std::vector<int> grades_of(const std::vector<std::pair<size_t, int>>& relevant) {
  std::vector<int> grades(300, 0);
  for (const auto& [rank, grade] : relevant) grades[rank - 1] = grade;
  return grades;
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
  const auto chosen = sample_documents(grades, 1, 20, 5);
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
  const Counts counts = count(sample_documents(grades, 1, 30, 1), grades);
  EXPECT_EQ(counts.relevant, 1);
  EXPECT_EQ(counts.hard, 8);
  EXPECT_EQ(counts.medium, 21);
  // Nearly all are relevant.
  std::vector<int> many(30, 1);
  many[7] = 0;
  const auto chosen = sample_documents(many, 1, 12, 1);
  EXPECT_EQ(chosen.size(), 12u);
  EXPECT_EQ(count(chosen, many).hard, 1);
}

TEST(SampledDocuments, AreAllOfAShortListAndDependOnTheSeedAlone) {
  const auto grades = grades_of({{1, 1}});
  EXPECT_EQ(sample_documents({grades.data(), 20}, 1, 20, 1).size(), 20u);
  EXPECT_EQ(sample_documents({grades.data(), 3}, 1, 20, 1), (std::vector<size_t>{0, 1, 2}));
  EXPECT_EQ(sample_documents(grades, 1, 20, 1), sample_documents(grades, 1, 20, 1));
  EXPECT_NE(sample_documents(grades, 1, 20, 1), sample_documents(grades, 1, 20, 2));
}

TEST(SampledDocuments, MediumOnesAreDrawnEvenly) {
  const auto grades = grades_of({{1, 1}});
  std::vector<int> times(300, 0);
  constexpr int kDraws = 3000;
  for (uint64_t seed = 0; seed < kDraws; ++seed)
    for (const size_t i : sample_documents(grades, 1, 20, seed)) ++times[i];
  for (size_t i = 10; i < 100; ++i) EXPECT_NEAR(times[i], kDraws * 5 / 90.0, 60) << i;
  for (size_t i = 100; i < 300; ++i) EXPECT_NEAR(times[i], kDraws * 5 / 200.0, 45) << i;
}

}  // namespace
}  // namespace erank::train
