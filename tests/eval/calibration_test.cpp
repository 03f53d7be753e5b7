#include "erank/eval/calibration.h"

#include <gmock/gmock.h>
#include <rapidcheck.h>

#include <cmath>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "tests/eval/eval_fixtures.h"
#include "tests/test_folder.h"

namespace erank::eval {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Pairs = std::vector<JudgedScore>;

std::string refusal(const std::function<void()>& body) {
  try {
    body();
  } catch (const base::Error& e) {
    return e.what();
  }
  return "(accepted)";
}

// Scores from 0 to 10 whose chance of relevance is `chance(score)`, 20 a query.
template <typename Chance>
Pairs drawn(size_t n, uint64_t seed, const Chance& chance) {
  base::Random random(seed);
  Pairs pairs;
  for (size_t i = 0; i < n; ++i) {
    const double score = 10 * random.uniform();
    pairs.push_back({score, random.uniform() < chance(score), static_cast<int64_t>(i / 20)});
  }
  return pairs;
}

Calibration with(Calibration map, Calibration::Method method) {
  map.method = method;
  return map;
}

TEST(Isotonic, PoolsAdjacentViolators) {
  // By score: 1 of 1; 0 of 1; 1 of 2; 1 of 1. The first two pool to 1/2, so does the third.
  const Pairs pairs = {{1, true, 0}, {2, false, 0}, {3, true, 0}, {3, false, 1}, {5, true, 1}};
  const Calibration map = fit_calibration(pairs);
  EXPECT_THAT(map.scores, ElementsAre(1, 3, 5));
  EXPECT_THAT(map.probabilities, ElementsAre(0.5, 0.5, 1));
  EXPECT_EQ(map.probability(-7), 0.5);
  EXPECT_EQ(map.probability(2.5), 0.5);
  EXPECT_EQ(map.probability(4), 0.75);
  EXPECT_EQ(map.probability(9), 1);
}

TEST(Platt, FindsTheSigmoidThatTheScoresWereDrawnFrom) {
  const auto chance = [](double score) { return 1 / (1 + std::exp(-(0.9 * score - 4))); };
  const Calibration map = fit_calibration(drawn(40'000, 5, chance));
  EXPECT_NEAR(map.slope, 0.9, 0.03);
  EXPECT_NEAR(map.intercept, -4, 0.12);
  for (const auto method : {Calibration::Method::kPlatt, Calibration::Method::kIsotonic})
    for (double score = 0.5; score < 10; score += 0.5)
      EXPECT_NEAR(with(map, method).probability(score), chance(score), 0.05) << score;
}

TEST(Platt, SolvesItsEquationsAndIsNeverFallingOrInfinite) {
  // At the solution the residuals against Platt's targets are 0 in sum and against the scores.
  const Pairs pairs = drawn(300, 6, [](double score) { return score / 12; });
  const Calibration map = with(fit_calibration(pairs), Calibration::Method::kPlatt);
  double relevant = 0;
  for (const auto& pair : pairs) relevant += pair.relevant;
  const double other = static_cast<double>(pairs.size()) - relevant;
  double sum = 0, moment = 0;
  for (const auto& pair : pairs) {
    const double residual = map.probability(pair.score) -
                            (pair.relevant ? (relevant + 1) / (relevant + 2) : 1 / (other + 2));
    sum += residual, moment += residual * pair.score;
  }
  EXPECT_NEAR(sum, 0, 1e-6);
  EXPECT_NEAR(moment, 0, 1e-5);

  const Calibration falling = fit_calibration(Pairs{{1, true, 0}, {2, true, 0}, {3, false, 1}});
  EXPECT_EQ(falling.slope, 0);
  const Calibration apart = fit_calibration(Pairs{{1, false, 0}, {2, true, 1}});
  EXPECT_TRUE(std::isfinite(apart.slope) && apart.slope > 0);
  const Calibration equal = fit_calibration(Pairs{{4, false, 0}, {4, true, 1}, {4, false, 2}});
  // The mean of the targets 2/3, 1/4 and 1/4.
  EXPECT_NEAR(with(equal, Calibration::Method::kPlatt).probability(4), 7.0 / 18, 1e-9);
}

TEST(Reliability, IsTheWeightedGapOfItsBins) {
  const Pairs pairs = {{0, false, 0}, {0, true, 0}, {0, true, 0}, {0, false, 0}};
  const Reliability r = reliability(std::vector<double>{0.1, 0.15, 0.95, 1}, pairs);
  EXPECT_EQ(r.bins[1].num_pairs, 2);
  EXPECT_DOUBLE_EQ(r.bins[1].mean_probability, 0.125);
  EXPECT_EQ(r.bins[9].num_pairs, 2);  // 1 is in the last bar
  EXPECT_DOUBLE_EQ(r.bins[9].share_relevant, 0.5);
  EXPECT_DOUBLE_EQ(r.expected_error, 0.5 * (0.5 - 0.125) + 0.5 * (0.975 - 0.5));
  EXPECT_DOUBLE_EQ(r.brier, (0.01 + 0.85 * 0.85 + 0.05 * 0.05 + 1) / 4);
}

TEST(CrossValidation, ShowsThatCalibrationHelpsOverconfidentScores) {
  const auto measured =
      cross_validate(drawn(4'000, 9, [](double score) { return 0.02 + 0.03 * score; }), 10);
  EXPECT_EQ(measured.folds, 5);
  ASSERT_TRUE(measured.before);
  EXPECT_GT(measured.before->expected_error, 0.25);
  EXPECT_LT(measured.isotonic.expected_error, 0.06);
  EXPECT_LT(measured.platt.expected_error, 0.04);
  EXPECT_LT(measured.platt.brier, measured.before->brier);
}

TEST(CrossValidation, NeverLearnsFromTheQueriesItMeasures) {
  // Each query's relevant score is one that all others have as not relevant: what was learned from
  // other queries says 0, what was learned from the same one would say more.
  Pairs pairs;
  for (int64_t group = 0; group < 4; ++group)
    for (int64_t score = 0; score < 4; ++score)
      pairs.push_back({static_cast<double>(score), score == group, group});
  const auto measured = cross_validate(pairs, 0);
  EXPECT_EQ(measured.folds, 4);
  const Calibration all = fit_calibration(pairs);
  double in_sample = 0;
  for (const auto& pair : pairs)
    in_sample += std::pow(all.probability(pair.score) - pair.relevant, 2) / 16;
  EXPECT_GT(measured.isotonic.brier, in_sample + 0.02);
  EXPECT_FALSE(measured.before);
}

TEST(ScoreScale, IsWhatIsSaidElseOfTheDistributionsElseAGuess) {
  const auto found = [](double most, const Pairs& judged, std::optional<int> answer = {},
                        std::optional<ScoreScale> said = {}) {
    data::Results results;
    results.results["q"] = {{"a", most}, {"b", std::nullopt}};
    results.highest_answer = answer;
    return find_scale(results, judged, said);
  };
  using From = ScoreScale::From;
  EXPECT_EQ(found(1, {{0.2, true, 0}, {1, true, 0}}).highest, 1);
  EXPECT_EQ(found(7, {{0.2, true, 0}}).highest, 10);  // a score that is not judged counts too
  EXPECT_EQ(found(1, {{-0.2, true, 0}}).highest, 0);
  EXPECT_EQ(found(10.5, {{10.5, true, 0}}).highest, 0);
  EXPECT_EQ(found(1, {{0.5, true, 0}}, 3).highest, 3);
  EXPECT_EQ(found(1, {{0.5, true, 0}}, 3).from, From::kDistributions);
  EXPECT_EQ(found(7, {{7, true, 0}}, 3).highest, 0);
  EXPECT_EQ(found(1, {{0.5, true, 0}}, 3, ScoreScale{10, From::kRecord}).highest, 10);
  EXPECT_THAT(refusal([&] {
                found(7, {{7, true, 0}}, {}, ScoreScale{3, From::kOption});
              }),
              HasSubstr("score 7, expected 0 to 3"));
}

TEST(Calibration, IsRefusedWithoutBothKindsOfPairsOrQueries) {
  EXPECT_THAT(refusal([] { fit_calibration(Pairs{{1, true, 0}}); }), HasSubstr("1 relevant and 0"));
  EXPECT_THAT(refusal([] {
                cross_validate(Pairs{{1, true, 0}, {2, false, 0}}, 10);
              }),
              HasSubstr("expected at least two"));
}

TEST(Calibration, ComesBackFromItsFileBitForBit) {
  const TestFolder folder;
  const Pairs pairs = drawn(200, 11, [](double score) { return score / 10; });
  for (const auto method : {Calibration::Method::kPlatt, Calibration::Method::kIsotonic}) {
    Calibration map = with(fit_calibration(pairs), method);
    map.scored_by = ScoredBy{"m", "1f", "find it", "think", "expected", "0-10", 512,
                             3,   0.7,  300,       60,      "windows",  8};
    const auto json = to_json(map, cross_validate(pairs, 10), pairs);
    const Calibration again = read_calibration(folder.write("c.json", base::dump_json(json)));
    for (double score = -1; score < 11; score += 0.37)
      EXPECT_EQ(again.probability(score), map.probability(score));
    EXPECT_EQ(difference(*again.scored_by, *map.scored_by), "");
    EXPECT_EQ(again.scored_by->max_think_tokens, 512);
    EXPECT_EQ(again.scored_by->samples, 3);
    EXPECT_EQ(again.scored_by->temperature, 0.7);
    EXPECT_EQ(again.scored_by->max_document_tokens, 300);
    EXPECT_EQ(again.scored_by->max_query_tokens, 60);
    EXPECT_EQ(again.scored_by->long_documents, "windows");
    EXPECT_EQ(again.scored_by->max_windows, 8);
    EXPECT_EQ(json["measured"]["queries"], 10);
    EXPECT_EQ(json["measured"]["pairs"], 200);
  }
}

TEST(Calibration, SaysWhatDiffersOfTheScoresThatItIsFor) {
  const ScoredBy before = {"m", "1f", "find it", "direct", "expected", "0-10"};
  const auto said = [&](std::string ScoredBy::*member, const char* value) {
    ScoredBy now = before;
    now.*member = value;
    return difference(before, now);
  };
  EXPECT_EQ(said(&ScoredBy::model, "renamed"), "");
  EXPECT_THAT(said(&ScoredBy::weights, "2e"), HasSubstr("files of the model m"));
  EXPECT_EQ(said(&ScoredBy::mode, "think"), "'mode' was 'direct', now it is 'think'");
  EXPECT_THAT(said(&ScoredBy::instruction, ""), HasSubstr("'instruction' was 'find it'"));
  EXPECT_THAT(said(&ScoredBy::score, "paper"), HasSubstr("'score'"));
  EXPECT_THAT(said(&ScoredBy::scale, "0-3"), HasSubstr("'scale'"));
  ScoredBy early = before, now = before;
  early.mode = now.mode = "think";
  now.max_think_tokens = 512, now.samples = 1, now.temperature = 0;
  EXPECT_EQ(difference(early, now), "");  // which did not say how it reasoned
  ScoredBy then = now;
  then.max_think_tokens = 4096;
  EXPECT_EQ(difference(then, now), "'max_think_tokens' was 4096, now it is 512");
  then = now, then.samples = 3;
  EXPECT_EQ(difference(then, now), "'samples' was 3, now it is 1");
  then = now, then.temperature = 0.7;
  EXPECT_EQ(difference(then, now), "'temperature' was 0.7, now it is 0");
  now.max_document_tokens = 300, now.max_query_tokens = 60;
  now.long_documents = "windows", now.max_windows = 8;
  EXPECT_EQ(difference(early, now), "");  // nor what of its texts was read
  then = now, then.max_document_tokens = 200;
  EXPECT_EQ(difference(then, now), "'max_doc_tokens' was 200, now it is 300");
  then = now, then.max_query_tokens = 50;
  EXPECT_EQ(difference(then, now), "'max_query_tokens' was 50, now it is 60");
  then = now, then.max_windows = 4;
  EXPECT_EQ(difference(then, now), "'max_windows' was 4, now it is 8");
  then = now, then.long_documents = "cut", then.max_windows.reset();
  EXPECT_EQ(difference(then, now), "'long_docs' was cut, now it is windows");
}

TEST(Calibration, RefusesWhatIsNoFileOfIts) {
  const TestFolder folder;
  const std::string good =
      R"({"erank_calibration":1,"method":"platt","isotonic":{"scores":[1,2],"probabilities":[0.1,0.2]},)"
      R"("platt":{"slope":1,"intercept":0},"measured":{}})";
  const auto said = [&](const std::string& what, const std::string& with) {
    std::string text = good;
    text.replace(text.find(what), what.size(), with);
    const std::string path = folder.write("c.json", text);
    return refusal([&] { read_calibration(path); });
  };
  EXPECT_EQ(said("1,2", "1,2"), "(accepted)");
  EXPECT_THAT(said("\"measured\":{}", "\"measured\":{},\"scored_by\":{\"model\":\"m\"}"),
              HasSubstr("'weights' is missing"));
  EXPECT_THAT(said("\"erank_calibration\":1,", ""), HasSubstr("no calibration"));
  EXPECT_THAT(said("calibration\":1", "calibration\":2"), HasSubstr("version 2"));
  EXPECT_THAT(said("\"platt\",", "\"best\","), HasSubstr("'best'"));
  EXPECT_THAT(said("[1,2]", "[2,1]"), HasSubstr("must rise"));
  EXPECT_THAT(said("[0.1,0.2]", "[0.3,0.2]"), HasSubstr("number 1"));
  EXPECT_THAT(said("[0.1,0.2]", "[0.1,1.2]"), HasSubstr("within 0 and 1"));
  EXPECT_THAT(said("[0.1,0.2]", "[0.1]"), HasSubstr("differ in length"));
  EXPECT_THAT(said("[1,2]", "[1,null]"), HasSubstr("no list of numbers"));
  EXPECT_THAT(said("\"slope\":1", "\"slope\":-1"), HasSubstr("below 0"));
  EXPECT_THAT(said("\"measured\"", "\"measure\""), HasSubstr("measure"));
}

TEST(CalibrationProperties, EveryMapRisesAndStaysWithinZeroAndOne) {
  EXPECT_TRUE(rc::check("monotone", [] {
    Pairs pairs = {{static_cast<double>(*rc::gen::inRange(-5, 6)), true, 0},
                   {static_cast<double>(*rc::gen::inRange(-5, 6)), false, 1}};
    for (const auto& [score, relevant] : *rc::gen::container<std::vector<std::pair<int, bool>>>(
             rc::gen::pair(rc::gen::inRange(-5, 6), rc::gen::arbitrary<bool>())))
      pairs.push_back({score / 2.0, relevant, 0});
    const Calibration fitted = fit_calibration(pairs);
    for (const auto method : {Calibration::Method::kPlatt, Calibration::Method::kIsotonic}) {
      double before = 0;
      for (double score = -7; score < 7; score += 0.13) {
        const double p = with(fitted, method).probability(score);
        RC_ASSERT(p >= before && p <= 1);
        before = p;
      }
    }
    // Isotonic regression keeps the sum: mean probability = share of relevant pairs.
    double sum = 0;
    for (const auto& pair : pairs) sum += fitted.probability(pair.score) - pair.relevant;
    RC_ASSERT(std::abs(sum) < 1e-9 * static_cast<double>(pairs.size()));
  }));
}

}  // namespace
}  // namespace erank::eval
