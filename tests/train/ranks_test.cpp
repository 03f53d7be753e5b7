// What ranks learn together is what one learns.
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "erank/base/files.h"
#include "erank/model/lora.h"
#include "erank/train/rollout_objective.h"
#include "erank/train/sft.h"
#include "erank/train/trainer.h"
#include "tests/model/golden.h"
#include "tests/test_folder.h"
#include "tests/train/thread_ranks.h"
#include "tests/train/toy_ranking.h"

namespace erank::train {
namespace {

class TinyTogether : public ::testing::Test {
 protected:
  TinyTogether() {
    at::set_num_threads(1);
    toy_.warm_up(25);
    train_.schedule = {.peak = 0.005, .warmup_ratio = 0, .constant = true};
    train_.gemm_peak = 1e10;
    train_.lora = model::LoraConfig{.rank = 2, .alpha = 4, .dropout = 0, .target_modules = {}};
  }
  ~TinyTogether() override { at::set_num_threads(threads_); }

  using MakeObjective = std::function<std::unique_ptr<Objective>(model::Parameters&)>;
  // A run by so many ranks -> its log.
  std::vector<base::Json> run(int size, const MakeObjective& make) {
    const TestFolder folder;
    run_ranks(size, [&](Communicator& ranks) {
      at::set_num_threads(1);
      const auto weights = toy_.parameters();
      if (train_.lora) {
        weights->add_adapter(kTrainedAdapter,
                             model::make_adapter(weights->config(), *train_.lora, 1));
        model::fill_golden(weights->adapter(kTrainedAdapter)->named(), 0.1);
      }
      const auto objective = make(*weights);
      Trainer(*weights, *objective, train_, folder.path("run"), {}, ranks).run(nullptr, [] {
        return false;
      });
    });
    std::vector<base::Json> lines;
    std::istringstream text(base::read_file(folder.path("run/log.jsonl")));
    for (std::string line; std::getline(text, line);)
      lines.push_back(base::parse_json(line, "log.jsonl"));
    return lines;
  }
  // Two, three (which share out unevenly) and ten (more than there is work for) as one.
  void expect_same(const MakeObjective& make) {
    const auto alone = run(1, make);
    EXPECT_GE(alone.size(), 4u);
    for (const int size : {2, 3, 4, 10}) {
      const auto together = run(size, make);
      ASSERT_EQ(alone.size(), together.size());
      for (size_t i = 0; i < alone.size(); ++i)
        for (const auto& [key, value] : alone[i].items()) {
          if (!value.is_number() || key.find("seconds") != key.npos ||
              key.find("_per_") != key.npos || key == "share_of_gemm_peak")
            continue;
          const auto expected = value.get<double>();
          const double scale = key == "loss" ? 1 : std::max(1.0, std::abs(expected));  // fp32
          EXPECT_NEAR(expected, together[i].at(key).get<double>(), 1e-5 * scale)
              << key << " of line " << i << ", " << size << " ranks";
        }
    }
  }

  ToyRanking toy_{rank::random_checkpoint("ranks")};
  TrainOptions train_;

 private:
  const int threads_ = at::get_num_threads();
};

TEST_F(TinyTogether, RanksLearnFromPairsAsOne) {
  const rank::ScoreReader reader(toy_.tokenizer);
  text::Ids digits;
  for (size_t i = 0; i < 10; ++i) digits.push_back(reader.choices()[i].front());
  std::vector<Example> examples;
  for (const RankedQuery& query : ToyRanking::queries(1, 8))
    for (size_t d = 0; d < query.prompts.size(); ++d) {
      Branch branch{toy_.format.direct_close(), {}, 1};
      const auto row = static_cast<int32_t>(branch.ids.size());
      branch.ids.push_back(digits[1]);
      branch.terms = {{row, digits[query.grades[d] > 0 ? 9 : 2]}, {row + 1, digits[0], 0}};
      examples.push_back({query.qid, query.prompts[d], {branch}});
      examples.back().score = query.grades[d] > 0 ? 9 : 2;
      examples.back().rank_term = 0;
    }
  for (const bool full : {false, true})
    for (const auto weighting : {Weighting::kExamples, Weighting::kTokens}) {
      if (full) train_.lora.reset(), train_.schedule.peak = 0.0005;
      SftOptions options;
      options.batch_size = 12, options.group_size = 3;
      options.packing = {weighting, 64};
      options.rank.kind = RankLoss::kMargin;
      options.answers = digits;
      expect_same([&](model::Parameters&) {
        return std::make_unique<SftObjective>(examples, options, toy_.held_out());
      });
    }
}

TEST_F(TinyTogether, RanksLearnFromRewardsAsOne) {
  const auto data = ToyRanking::queries(1, 8, 4);
  GrpoOptions grpo;
  grpo.iterations = 3, grpo.queries_per_iteration = 6, grpo.mini_batch = 12;
  grpo.kl_coef = 0.01;
  expect_same([&](model::Parameters&) {
    return std::make_unique<ExactObjective>(data, grpo, toy_.model_format(), toy_.held_out());
  });
  for (const bool correction : {false, true}) {
    RolloutObjectiveOptions rollouts;
    rollouts.loss.rollout_correction = correction;
    rollouts.rollouts.num_samples = 3;
    expect_same([&](model::Parameters& weights) {
      auto made = std::make_unique<RolloutObjective>(data, grpo, rollouts, toy_.model_format(),
                                                     toy_.held_out());
      made->freeze_reference(weights, false);
      return made;
    });
  }
}

}  // namespace
}  // namespace erank::train
