#include "erank/train/grpo.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <sstream>

#include "erank/base/files.h"
#include "tests/test_folder.h"
#include "tests/train/tiny_training.h"
#include "tests/train/toy_ranking.h"

namespace erank::train {
namespace {

using ::testing::HasSubstr;

class TinyExact : public ::testing::Test {
 protected:
  explicit TinyExact(text::Scale scale = text::Scale::kZeroToTen)
      : toy_(rank::random_checkpoint("exact_objective"), scale) {
    at::set_num_threads(1);
    grpo_.iterations = 30, grpo_.queries_per_iteration = 24, grpo_.mini_batch = 36;
    toy_.warm_up(60);
    train_.lora.reset();
    train_.schedule = {.peak = 0.003, .warmup_ratio = 0, .constant = true};
    train_.gemm_peak = 1e10;
    train_.checkpoint_steps = 0;
  }
  ~TinyExact() override { at::set_num_threads(threads_); }

  std::unique_ptr<ExactObjective> objective(bool validation = true) const {
    return std::make_unique<ExactObjective>(data_, grpo_, toy_.model_format(),
                                            validation ? toy_.held_out() : nullptr);
  }
  // The held-out nDCG@10 of the last weights.
  double run(
      const std::string& name, Objective& objective,
      const std::function<bool()>& stop = [] { return false; }) {
    parameters_ = toy_.parameters();
    Trainer trainer(*parameters_, objective, train_, folder_.path(name), {{"seed", "1"}});
    trainer.resume();
    return trainer.run(nullptr, stop).last_metric.value_or(-1);
  }
  double learned(const std::string& name) {
    const auto made = objective();
    return run(name, *made);
  }
  double at_start() {
    const auto made = objective();
    const auto parameters = toy_.parameters();
    TreeForward forward(*parameters);
    const std::function<bool()> never = [] { return false; };
    return made->validate({*parameters, forward}, {nullptr, never})->front().second;
  }

  ToyRanking toy_;
  std::vector<RankedQuery> data_ = ToyRanking::queries(1, ToyRanking::kQueries);
  GrpoOptions grpo_;
  TrainOptions train_;
  TestFolder folder_;
  std::unique_ptr<model::Parameters> parameters_;

 private:
  const int threads_ = at::get_num_threads();
};

TEST_F(TinyExact, LearnsTheToy) {
  const double start = at_start();
  EXPECT_LT(start, 0.75);
  const auto with = [&](const std::string& name, Reward reward) {
    grpo_.reward.reward = reward;
    return learned(name);
  };
  EXPECT_GE(with("rr", Reward::kRr), 0.95);
  const auto gap = score_gap(folder_.path("rr/log.jsonl"));
  EXPECT_GT(gap.back(), gap.front() + 1);
  EXPECT_GE(with("ndcg", Reward::kNdcg), 0.95);
  // What should not teach it does not.
  EXPECT_LE(with("se", Reward::kSe), 0.85);
  train_.schedule.peak = -0.001, grpo_.iterations = 10;
  EXPECT_LE(with("wrong sign", Reward::kRr), start - 0.05);
  const auto wrong_gap = score_gap(folder_.path("wrong sign/log.jsonl"));
  EXPECT_LT(wrong_gap.back(), wrong_gap.front());
  train_.schedule.peak = 0.003, grpo_.iterations = 30;
  base::Random random(3);
  for (RankedQuery& query : data_) base::shuffle(query.grades, random);
  EXPECT_LE(with("shuffled", Reward::kRr), 0.85);
}

class TinyExactOnScale : public TinyExact, public ::testing::WithParamInterface<text::Scale> {
 protected:
  TinyExactOnScale() : TinyExact(GetParam()) {}
};

// From a teacher's scores: by ranks alone answers of few kinds soon tie, which is a perfect
// ranking.
TEST_P(TinyExactOnScale, LearnsTheToyFromATeacher) {
  const double start = at_start();
  grpo_.reward.reward = Reward::kSe;
  for (RankedQuery& query : data_)
    for (const int grade : query.grades)
      query.reference.push_back(grade * text::max_answer(GetParam()));
  EXPECT_LT(start, 0.8);
  EXPECT_GE(learned("teacher"), 0.95);
}

TEST_F(TinyExact, LogsTheFiguresOfEachStep) {
  grpo_.iterations = 2;
  learned("log");
  std::istringstream log(base::read_file(folder_.path("log/log.jsonl")));
  int steps = 0;
  for (std::string text; std::getline(log, text);) {
    const base::Json line = base::parse_json(text, "log.jsonl");
    if (line.contains("prepared")) {
      EXPECT_EQ(line["step"], 1);
      EXPECT_LT(line["reference_ndcg_10"].get<double>(), 0.9);
    } else if (line.contains("reward")) {
      ++steps;
      for (const char* key :
           {"ndcg_10", "reward_std", "reward_positive", "reward_negative", "score_positive",
            "score_negative", "unformatted", "flat_groups", "kl", "entropy"})
        EXPECT_TRUE(line.at(key).is_number()) << key;
      EXPECT_NEAR(line["kl"].get<double>(), 0, steps == 1 ? 1e-5 : 10) << steps;
    }
  }
  EXPECT_EQ(steps, 2 * 4);
}

TEST_F(TinyExact, TheOrderIsAFunctionOfSeedAndIterationAndEachQueryComesOnceAnEpoch) {
  grpo_.queries_per_iteration = 5, grpo_.mini_batch = 12;
  data_.resize(12);
  const auto made = objective(false);
  EXPECT_EQ(made->steps_per_iteration(), 3);  // 30 pairs
  EXPECT_EQ(made->num_steps(), 90);
  std::set<size_t> seen;
  for (int64_t iteration = 0; iteration < 4; ++iteration) {
    const auto all = made->queries_of(iteration);
    EXPECT_EQ(all, objective(false)->queries_of(iteration));
    EXPECT_EQ(all.size(), 5u);
    std::vector<size_t> joined;
    for (int64_t step = 3 * iteration; step < 3 * iteration + 3; ++step) {
      const auto part = made->mini_batch(step);
      EXPECT_GE(part.size(), 1u);
      EXPECT_LE(part.size(), 2u);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    EXPECT_EQ(joined, all);
    if (iteration == 2) seen.clear();  // two iterations of five are an epoch of twelve
    seen.insert(all.begin(), all.end());
    EXPECT_EQ(seen.size(), iteration % 2 == 0 ? 5u : 10u);
  }
  EXPECT_NE(made->queries_of(0), made->queries_of(2));
  grpo_.seed = 2;
  EXPECT_NE(made->queries_of(0), objective(false)->queries_of(0));
}

// The step's loss and gradient.
std::pair<double, std::vector<at::Tensor>> gradient_of(ExactObjective& objective,
                                                       model::Parameters& parameters) {
  TreeForward forward(parameters);
  const std::function<bool()> stop = [] { return false; };
  {
    const at::NoGradGuard no_grad;
    objective.prepare({parameters, forward}, 0, {nullptr, stop});
  }
  for (const auto& p : parameters.named()) p.tensor.set_requires_grad(true);
  const StepStats stats = objective.accumulate({parameters, forward}, 0,
                                               [](const at::Tensor& loss) { loss.backward(); });
  std::vector<at::Tensor> gradients;
  for (const auto& p : parameters.named()) {
    gradients.push_back(p.tensor.grad().clone());
    p.tensor.mutable_grad().reset();
  }
  return {stats.loss, gradients};
}

TEST_P(TinyExactOnScale, AQueryThatIsSpreadOverPassesHasTheGradientOfOneInAPass) {
  const auto parameters = toy_.parameters();
  const auto [loss, whole] = gradient_of(*objective(false), *parameters);
  for (const int64_t tokens : {100, 40, 1}) {
    grpo_.max_pass_tokens = tokens;
    const auto [loss_of_parts, parts] = gradient_of(*objective(false), *parameters);
    EXPECT_NEAR(loss_of_parts, loss, 1e-6);
    for (size_t i = 0; i < whole.size(); ++i)
      EXPECT_LT((parts[i] - whole[i]).abs().max().item<double>(),
                1e-4 * whole[i].abs().max().item<double>() + 1e-7)
          << tokens << " " << i;
  }
}

TEST_P(TinyExactOnScale, TheGradientIsThatOfTheExpectedReward) {
  grpo_.reward.reward = Reward::kSe;  // of each document alone
  grpo_.divide_by_std = false, grpo_.kl_coef = 0;
  const auto parameters = toy_.parameters();
  const auto made = objective(false);
  const auto [loss, gradients] = gradient_of(*made, *parameters);
  const auto reward = [&] {
    TreeForward forward(*parameters);
    const at::NoGradGuard no_grad;
    return made->accumulate({*parameters, forward}, 0, [](const at::Tensor&) {}).figures[0].second;
  };
  const auto named = parameters->named();
  double norm = 0;
  for (const at::Tensor& g : gradients) norm += g.pow(2).sum().item<double>();
  norm = std::sqrt(norm);
  const double step = 2e-3;
  const auto move = [&](double by) {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < named.size(); ++i) named[i].tensor.sub_(gradients[i], by / norm);
  };
  move(step);
  const double above = reward();
  move(-2 * step);
  const double below = reward();
  EXPECT_GT(norm, 1e-3);
  EXPECT_NEAR((above - below) / (2 * step), norm, 2e-2 * norm);
}

TEST_F(TinyExact, ARunStoppedAtAnyMomentEndsWithTheBitsOfAnUnbrokenOne) {
  data_.resize(6);
  grpo_.iterations = 3, grpo_.queries_per_iteration = 3, grpo_.mini_batch = 6;
  train_.checkpoint_steps = 1;
  const auto weights = [&] {
    std::vector<at::Tensor> copies;
    for (const auto& p : parameters_->named()) copies.push_back(p.tensor.detach().clone());
    return copies;
  };
  int asked = 0;
  run("whole", *objective(), [&] { return ++asked, false; });
  const auto whole = weights();
  ASSERT_GT(asked, 9 + 6 - 1);  // before steps, and before each query at first
  struct Killed {};
  for (int at = 1; at <= asked; at += 2)
    for (const bool killed : {true, false}) {
      const std::string name = base::str("at", at, killed);
      int now = 0;
      const auto stop = [&] {
        if (++now < at) return false;
        if (killed) throw Killed();
        return true;
      };
      if (killed)
        EXPECT_THROW(run(name, *objective(), stop), Killed);
      else
        run(name, *objective(), stop);
      run(name, *objective());
      const auto resumed = weights();
      for (size_t i = 0; i < whole.size(); ++i)
        ASSERT_TRUE(at::equal(resumed[i], whole[i])) << name << " " << i;
    }
}

TEST_F(TinyExact, HaltsOverTheLargestKlAndWhereNoAnswerIsFormatted) {
  const auto fault = [&](const std::string& name) -> std::string {
    try {
      run(name, *objective());
    } catch (const base::Error& e) {
      return e.what();
    }
    return "";
  };
  grpo_.max_kl = 1e-3;
  EXPECT_THAT(fault("kl"), HasSubstr("over --max-kl 0.001; a smaller --learning-rate"));
  EXPECT_THAT(base::read_file(folder_.path("kl/log.jsonl")), HasSubstr("\"halted\""));
  grpo_.max_kl = 10;
  // Every answer is the letter x.
  const ToyRanking mute(rank::chain_checkpoint("exact_mute", {{'>', 'x'}}));
  const auto parameters = mute.parameters();
  ExactObjective without(data_, grpo_, mute.model_format(), nullptr);
  TreeForward forward(*parameters);
  const std::function<bool()> stop = [] { return false; };
  const at::NoGradGuard no_grad;
  without.prepare({*parameters, forward}, 0, {nullptr, stop});
  EXPECT_THAT(without.accumulate({*parameters, forward}, 0, [](const at::Tensor&) {}).halt,
              HasSubstr("no answer is formatted"));
}

TEST_F(TinyExact, HaltsWhenTheEntropyIsGoneForFiveIterations) {
  data_.resize(6);
  grpo_.iterations = kLowEntropyIterations + 2, grpo_.queries_per_iteration = 3;
  grpo_.mini_batch = 6;
  EXPECT_EQ(objective()->steps_per_iteration(), 3);
  const auto last_step = [&](const std::string& name) {
    try {
      run(name, *objective());
    } catch (const base::Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("for 5 iterations under --min-entropy 3: answers hardly"));
      EXPECT_THAT(e.what(), HasSubstr("step 15: "));
      return;
    }
    ADD_FAILURE() << name;
  };
  grpo_.min_entropy = 3;  // over log 12
  last_step("unbroken");
  train_.stop_after = 4;
  run("resumed", *objective());
  run("resumed", *objective());
  train_.stop_after = 0;
  last_step("resumed");
  // One step over the limit and the count begins anew; as good as never under it.
  grpo_.min_entropy = 1e-9;
  run("fine", *objective());
}

TEST_F(TinyExact, GivenReferenceScoresAreComparedWith) {
  grpo_.reward.reward = Reward::kSe;
  const auto reward_of = [&](double score) {
    for (RankedQuery& query : data_) query.reference.assign(query.prompts.size(), score);
    const auto parameters = toy_.parameters();
    const auto made = objective(false);
    TreeForward forward(*parameters);
    const std::function<bool()> stop = [] { return false; };
    const at::NoGradGuard no_grad;
    made->prepare({*parameters, forward}, 0, {nullptr, stop});
    const auto figures =
        made->accumulate({*parameters, forward}, 0, [](const at::Tensor&) {}).figures;
    for (const auto& [name, value] : figures)
      if (name == "kl") {
        EXPECT_NEAR(value, 0, 1e-5);  // the reference's answers are asked for
      }
    return figures.front().second;
  };
  // Answers are near 4 on average.
  EXPECT_GT(reward_of(4), reward_of(0) + 0.1);
  EXPECT_GT(reward_of(4), reward_of(10) + 0.3);
}

INSTANTIATE_TEST_SUITE_P(Tiny, TinyExactOnScale,
                         ::testing::Values(text::Scale::kZeroToTen, text::Scale::kZeroToThree,
                                           text::Scale::kYesNo),
                         [](const auto& info) {
                           return base::str("To", text::max_answer(info.param));
                         });

TEST_F(TinyExact, OptionsThatCannotBeAreRefused) {
  const auto refused = [&](const std::function<void(GrpoOptions&)>& change) {
    const GrpoOptions good = grpo_;
    change(grpo_);
    EXPECT_THROW(objective(false), base::Error);
    grpo_ = good;
  };
  refused([](GrpoOptions& o) { o.iterations = 0; });
  refused([](GrpoOptions& o) { o.queries_per_iteration = -1; });
  refused([](GrpoOptions& o) { o.mini_batch = 0; });
  refused([](GrpoOptions& o) { o.kl_coef = std::nan(""); });
  refused([](GrpoOptions& o) { o.max_kl = 0; });
  refused([](GrpoOptions& o) { o.min_entropy = -1; });
  refused([](GrpoOptions& o) { o.min_entropy = std::nan(""); });
}

}  // namespace
}  // namespace erank::train
