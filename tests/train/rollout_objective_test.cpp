#include "erank/train/rollout_objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "erank/base/files.h"
#include "erank/model/lora.h"
#include "tests/model/golden.h"
#include "tests/test_folder.h"
#include "tests/train/toy_ranking.h"

namespace erank::train {
namespace {

using ::testing::HasSubstr;

constexpr auto kNever = [] { return false; };
constexpr int kCloseAnswer = 303;

// Makes a piece that means nothing in `folder`/tokenizer.json into `text`.
void add_piece(const std::string& folder, int id, const std::string& text) {
  const std::string path = folder + "/tokenizer.json";
  base::Json json = base::parse_json(base::read_file(path), path);
  json["model"]["vocab"].erase("~" + std::to_string(id));
  json["model"]["vocab"][text] = id;
  base::write_file_atomic(path, base::dump_json(json));
}

// The rollouts of the given prompts on a checkpoint.
std::vector<Rollout> sample(const std::string& model, const RolloutOptions& options,
                            const std::vector<RolloutSampler::Prompt>& prompts,
                            text::Scale scale = text::Scale::kZeroToTen) {
  const text::Tokenizer tokenizer = text::Tokenizer::load(model);
  text::PromptOptions asking = rank::find_checkpoint(model).defaults.prompt;
  asking.scale = scale;
  const text::PromptFormat format(tokenizer, asking);
  Serving serving;
  serving.load(*model::load_parameters(model, at::kFloat));
  return RolloutSampler({tokenizer, format}, options)
      .sample(
          serving, prompts, [] {}, kNever);
}

TEST(TinyRolloutSampler, ReasoningIsKeptTokenByTokenWithItsAnswerAndStop) {
  const text::Ids prompt = {'q', '\n'};
  const RolloutOptions options{.modes = {rank::Mode::kThink}, .num_samples = 3};
  auto chain = rank::spelled("ok", rank::kThinkClose);
  const std::string answer = "<answer>7</";
  int before = rank::kThinkClose;
  for (const char c : answer) chain[before] = c, before = c;
  // "</answer>" would write '<' again: the end of the turn comes instead, so it is unformatted.
  chain['/'] = rank::kEndOfTurn;
  const auto rollouts =
      sample(rank::chain_checkpoint("rollouts_chain", chain), options, {{&prompt, 5}});
  ASSERT_EQ(rollouts.size(), 3u);
  for (const Rollout& rollout : rollouts) {
    EXPECT_EQ(rollout.score, kUnformatted);
    EXPECT_FALSE(rollout.overlong);
    EXPECT_EQ(rollout.tokens.back(), rank::kEndOfTurn);
    EXPECT_EQ(rollout.tokens[2], rank::kThinkClose);
    ASSERT_EQ(rollout.log_probs.size(), rollout.tokens.size());
    for (const float log_p : rollout.log_probs) EXPECT_NEAR(log_p, 0, 0.1);
  }
  // Without an end it is cut at its budget.
  const auto endless = sample(
      rank::chain_checkpoint("rollouts_endless", {{'\n', 'a'}, {'a', 'a'}}),
      {.modes = {rank::Mode::kThink}, .num_samples = 2, .max_think_tokens = 9}, {{&prompt, 5}});
  for (const Rollout& rollout : endless) {
    EXPECT_TRUE(rollout.overlong);
    EXPECT_EQ(rollout.tokens, text::Ids(9, 'a'));
  }
}

TEST(TinyRolloutSampler, DirectAnswersAreOneTokenOrTwoAfterAOne) {
  const text::Ids prompt = {'q', '\n'};
  const auto answer_of = [&](const std::map<int, int>& chain, const std::string& name) {
    return sample(rank::chain_checkpoint(name, chain), {.num_samples = 2}, {{&prompt, 1}}).front();
  };
  EXPECT_EQ(answer_of({{'>', '7'}}, "direct7").score, 7);
  EXPECT_EQ(answer_of({{'>', '7'}}, "direct7").tokens, (text::Ids{'7'}));
  EXPECT_EQ(answer_of({{'>', '1'}, {'1', '0'}}, "direct10").score, 10);
  EXPECT_EQ(answer_of({{'>', '1'}, {'1', '0'}}, "direct10").tokens, (text::Ids{'1', '0'}));
  EXPECT_EQ(answer_of({{'>', '1'}, {'1', '<'}}, "direct1").score, 1);
  EXPECT_EQ(answer_of({{'>', '1'}, {'1', '<'}}, "direct1").tokens, (text::Ids{'1', '<'}));
  const Rollout other = answer_of({{'>', 'x'}}, "directx");
  EXPECT_EQ(other.score, kUnformatted);
  EXPECT_EQ(other.tokens, (text::Ids{'x'}));
  EXPECT_FALSE(other.overlong);
}

TEST(TinyRolloutSampler, OnTheOtherScalesDirectAnswersAreOneToken) {
  const text::Ids prompt = {'q', '\n'};
  const auto answer_of = [&](text::Scale scale, const std::map<int, int>& chain) {
    const std::string model = rank::chain_checkpoint("direct_on_scale", chain);
    text::add_yes_no(model);
    return sample(model, {.num_samples = 2}, {{&prompt, 1}}, scale).front();
  };
  const auto three = [&](char next) {
    return answer_of(text::Scale::kZeroToThree, {{'>', next}, {'1', '0'}});
  };
  EXPECT_EQ(three('3').score, 3);
  EXPECT_EQ(three('1').score, 1);
  EXPECT_EQ(three('1').tokens, (text::Ids{'1'}));
  EXPECT_EQ(three('7').score, kUnformatted);
  EXPECT_EQ(answer_of(text::Scale::kYesNo, {{'>', text::kYes}}).score, 1);
  EXPECT_EQ(answer_of(text::Scale::kYesNo, {{'>', text::kYes}}).tokens, (text::Ids{text::kYes}));
  EXPECT_EQ(answer_of(text::Scale::kYesNo, {{'>', text::kNo}}).score, 0);
  EXPECT_EQ(answer_of(text::Scale::kYesNo, {{'>', '1'}}).score, kUnformatted);
}

TEST(TinyRolloutSampler, OnTheOtherScalesAnswersAfterReasoningAreTheirs) {
  const text::Ids prompt = {'q', '\n'};
  const RolloutOptions options{.modes = {rank::Mode::kThink}, .num_samples = 1};
  // Writes the answer, its closing tag by pieces that are not bytes, and the end of its turn.
  const auto score_of = [&](text::Scale scale, int answer) {
    std::map<int, int> chain = {{'\n', rank::kThinkClose}, {rank::kThinkClose, '<'}};
    int before = '<';
    for (const char c : std::string("answer>")) chain[before] = c, before = c;
    chain['>'] = answer, chain[answer] = kCloseAnswer, chain[kCloseAnswer] = rank::kEndOfTurn;
    const std::string model = rank::chain_checkpoint("think_on_scale", chain);
    text::add_yes_no(model);
    add_piece(model, kCloseAnswer, "</answer>");
    return sample(model, options, {{&prompt, 1}}, scale).front().score;
  };
  EXPECT_EQ(score_of(text::Scale::kYesNo, text::kYes), 1);
  EXPECT_EQ(score_of(text::Scale::kYesNo, '1'), kUnformatted);
  EXPECT_EQ(score_of(text::Scale::kZeroToThree, '3'), 3);
  EXPECT_EQ(score_of(text::Scale::kZeroToThree, '7'), kUnformatted);
  EXPECT_EQ(score_of(text::Scale::kZeroToTen, '7'), 7);
}

TEST(TinyRolloutSampler, DrawsDependOnThePromptAndItsSeedAlone) {
  const std::string model = rank::random_checkpoint("rollouts_draws");
  const text::Ids a = {'a', 'b', '\n'}, b = {'c', '\n'};
  const RolloutOptions options{
      .modes = {rank::Mode::kThink}, .num_samples = 4, .max_think_tokens = 12};
  const auto both = sample(model, options, {{&a, 1}, {&b, 2}}),
             alone = sample(model, options, {{&b, 2}});
  for (size_t g = 0; g < 4; ++g) {
    EXPECT_EQ(both[4 + g].tokens, alone[g].tokens);
    EXPECT_EQ(both[4 + g].log_probs, alone[g].log_probs);
  }
  EXPECT_NE(both[0].tokens, both[1].tokens);
  EXPECT_NE(sample(model, options, {{&b, 3}})[0].tokens, alone[0].tokens);
}

enum class Written { kDirect, kThink, kBoth };

class TinyRolloutObjective : public ::testing::TestWithParam<Written> {
 protected:
  TinyRolloutObjective() {
    at::set_num_threads(1);
    grpo_.iterations = 3, grpo_.queries_per_iteration = 4, grpo_.mini_batch = 8;
    grpo_.kl_coef = 0.01;
    if (thinks()) {
      rollouts_.rollouts = {{rank::Mode::kThink}, 8, 24};
      if (GetParam() == Written::kBoth) {
        rollouts_.rollouts.modes = {rank::Mode::kDirect, rank::Mode::kThink};
        // Both modes begin with the same token then.
        text::PromptOptions options = toy_.format.options();
        options.think_open = "<think>";
        toy_.format = text::PromptFormat(toy_.tokenizer, options);
      }
      for (RankedQuery& query : data_)
        for (text::Ids& prompt : query.prompts) prompt.push_back('\n');
    } else {
      toy_.warm_up(25);
    }
    train_.lora = model::LoraConfig{.rank = 2, .alpha = 4, .dropout = 0.2, .target_modules = {}};
    train_.schedule = {.peak = thinks() ? 0.001 : 0.01, .warmup_ratio = 0, .constant = true};
    train_.gemm_peak = 1e10;
    train_.checkpoint_steps = 1;
    train_.keep_checkpoints = 9;
  }
  ~TinyRolloutObjective() override { at::set_num_threads(threads_); }

  static bool thinks() { return GetParam() != Written::kDirect; }
  std::unique_ptr<RolloutObjective> objective() const {
    return std::make_unique<RolloutObjective>(data_, grpo_, rollouts_, toy_.model_format(),
                                              nullptr);
  }
  std::unique_ptr<model::Parameters> parameters() const {
    auto made = thinks() ? thinker() : toy_.parameters();
    if (!train_.lora) return made;
    made->add_adapter(kTrainedAdapter,
                      model::make_adapter(made->config(), *train_.lora, train_.seed));
    // An adapter that was trained before.
    model::fill_golden(made->adapter(kTrainedAdapter)->named(), thinks() ? 0.01 : 0.1);
    return made;
  }
  // Writes "</think><answer>7</answer>" or the same with a 3 where it draws the right one of two or
  // three tokens after each '<' and '>', else something that is not formatted.
  static std::unique_ptr<model::Parameters> thinker() {
    std::map<int, int> chain = {{'\n', rank::kThinkClose},
                                {rank::kThinkClose - 1, rank::kThinkClose},
                                {rank::kThinkClose, '<'},
                                {'<', 'a'},
                                {'/', 'a'},
                                {'a', 'n'},
                                {'n', 's'},
                                {'s', 'w'},
                                {'w', 'e'},
                                {'e', 'r'},
                                {'r', '>'},
                                {'>', '7'},
                                {'7', '<'},
                                {'3', '<'}};
    auto made = model::load_parameters(rank::chain_checkpoint("thinker", chain), at::kFloat);
    const at::NoGradGuard no_grad;
    const at::Tensor embedding = made->embed_tokens(), head = made->lm_head().weight;
    for (const auto& [token, successor] :
         {std::pair<int, int>{'<', '/'}, {'>', '3'}, {'>', rank::kEndOfTurn}})
      head.select(0, successor).add_(embedding.select(0, token));
    return made;
  }
  // The trained weights.
  std::vector<at::Tensor> run(
      const std::string& name, const std::function<bool()>& stop = [] { return false; }) {
    const auto made = objective();
    const auto weights = parameters();
    made->freeze_reference(*weights, !train_.lora);
    Trainer trainer(*weights, *made, train_, folder_.path(name), {{"seed", "1"}});
    trainer.resume();
    trainer.run(nullptr, stop);
    std::vector<at::Tensor> copies;
    for (const auto& p :
         train_.lora ? weights->adapter(kTrainedAdapter)->named() : weights->named())
      copies.push_back(p.tensor.detach().clone());
    return copies;
  }
  std::vector<base::Json> log(const std::string& name) const {
    std::vector<base::Json> lines;
    std::istringstream text(base::read_file(folder_.path(name + "/log.jsonl")));
    for (std::string line; std::getline(text, line);)
      lines.push_back(base::parse_json(line, "log.jsonl"));
    return lines;
  }

  ToyRanking toy_{rank::random_checkpoint("rollout_objective")};
  std::vector<RankedQuery> data_ = ToyRanking::queries(1, 8, 4);
  GrpoOptions grpo_;
  RolloutObjectiveOptions rollouts_;
  TrainOptions train_;
  TestFolder folder_;

 private:
  const int threads_ = at::get_num_threads();
};

TEST_P(TinyRolloutObjective, ARunKilledAtAnyMomentEndsWithTheBitsOfAnUnbrokenOne) {
  struct Killed {};
  int asked = 0;
  const auto whole = run("whole", [&] { return ++asked, false; });
  ASSERT_GT(asked, 6);  // before each step, and while sampling
  for (int at = 1; at <= asked; at += std::max(1, asked / (thinks() ? 4 : 10)))
    for (const bool killed : {true, false}) {
      const std::string name = base::str("at", at, killed);
      int now = 0;
      const auto stop = [&] {
        if (++now < at) return false;
        if (killed) throw Killed();
        return true;
      };
      if (killed)
        EXPECT_THROW(run(name, stop), Killed);
      else
        run(name, stop);
      const auto resumed = run(name);
      for (size_t i = 0; i < whole.size(); ++i)
        ASSERT_TRUE(at::equal(resumed[i], whole[i])) << name << " " << i;
      const auto lines = log(name);
      EXPECT_TRUE(std::any_of(lines.begin(), lines.end(), [](const base::Json& line) {
        return line.contains("reference_ndcg_10") || line.contains("reference_ndcg_10_direct");
      })) << name;
    }
}

TEST_P(TinyRolloutObjective, TheFirstStepOfAnIterationIsOnThePolicyThatSampled) {
  for (const bool full : {false, true}) {
    if (full) train_.lora.reset(), train_.schedule.peak /= 10;
    const std::string name = full ? "full" : "adapter";
    run(name);
    int prepared = 0;
    for (const auto& line : log(name)) {
      if (line.contains("prepared")) {
        ++prepared;
        for (const char* key : {"reward", "ndcg_10", "reward_std", "unformatted", "flat_groups",
                                "rollout_tokens", "sampling_seconds", "sampling_tokens_per_s"})
          EXPECT_TRUE(line.contains(key)) << key;
        continue;
      }
      const auto step = line["step"].get<int64_t>();
      if (step == 1) {
        EXPECT_NEAR(line["sampler_ratio"].get<double>(), 1, 1e-5);
        EXPECT_LT(line["sampler_difference"].get<double>(), 1e-5);
        EXPECT_NEAR(line["kl"].get<double>(), 0, 1e-6);  // the reference is these weights
      } else {
        EXPECT_FALSE(line.contains("sampler_ratio"));
        EXPECT_GT(line["kl"].get<double>(), 0);
      }
      const double spread = line["ratio_max"].get<double>() - line["ratio_min"].get<double>();
      if (step % 2 == 1)
        EXPECT_LT(spread, 1e-4) << step;
      else
        EXPECT_GT(spread, 1e-4) << step;
      EXPECT_GT(line["entropy"].get<double>(), 0);
    }
    EXPECT_EQ(prepared, 3);
  }
}

TEST_P(TinyRolloutObjective, HaltsWhenTheEngineIsNotTheTrainer) {
  const auto made = objective();
  const auto weights = parameters();
  made->freeze_reference(*weights, false);
  TreeForward forward(*weights);
  const std::function<bool()> stop = kNever;
  {
    const at::NoGradGuard no_grad;
    ASSERT_TRUE(made->prepare({*weights, forward}, 0, {nullptr, stop}).complete);
    weights->norm().mul_(0.2);
  }
  const StepStats stats = made->accumulate({*weights, forward}, 0, [](const at::Tensor&) {});
  EXPECT_THAT(stats.halt, HasSubstr("log-probabilities are not the trainer's"));
}

TEST_P(TinyRolloutObjective, HaltsOverTheLargestKl) {
  grpo_.max_kl = 1e-4;
  try {
    run("kl");
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("over --max-kl 0.0001"));
  }
}

TEST_P(TinyRolloutObjective, EveryOptionOfTheLossTrains) {
  for (const auto ratio : {RatioKind::kToken, RatioKind::kSequence, RatioKind::kCispo})
    for (const auto aggregation :
         {LossAggregation::kTokens, LossAggregation::kSequences, LossAggregation::kConstant})
      for (const bool correction : {false, true}) {
        if (thinks() && correction != (aggregation == LossAggregation::kTokens)) continue;
        rollouts_.loss.ratio = ratio, rollouts_.loss.aggregation = aggregation;
        rollouts_.loss.rollout_correction = correction;
        grpo_.kl_coef = correction ? 0 : 0.01;
        const std::string name =
            base::str(static_cast<int>(ratio), static_cast<int>(aggregation), correction);
        run(name);
        EXPECT_EQ(log(name).back()["step"], 6);
        EXPECT_EQ(log(name).back().contains("kl"), !correction);  // none is measured without
      }
}

TEST_P(TinyRolloutObjective, HaltsWhenTheEntropyIsGone) {
  grpo_.iterations = kLowEntropyIterations + 1, grpo_.min_entropy = 50;
  train_.stop_after = 3;
  run("entropy");  // the steps before a resume count too
  train_.stop_after = 0;
  try {
    run("entropy");
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("under --min-entropy 50"));
  }
  EXPECT_EQ(log("entropy").back()["step"], 2 * kLowEntropyIterations);
}

TEST_P(TinyRolloutObjective, GivenReferenceScoresAreComparedWithInsteadOfTheModels) {
  const auto prepared = [&] {
    const auto made = objective();
    const auto weights = parameters();
    made->freeze_reference(*weights, false);
    TreeForward forward(*weights);
    const std::function<bool()> stop = kNever;
    const at::NoGradGuard no_grad;
    return made->prepare({*weights, forward}, 0, {nullptr, stop}).figures;
  };
  const auto figure = [](const Figures& figures, const std::string& name) {
    for (const auto& [key, value] : figures)
      if (key == name) return value;
    return -1.0;
  };
  const Figures own = prepared();
  for (RankedQuery& query : data_) query.reference.assign(query.prompts.size(), 10);
  const Figures ten = prepared();
  for (RankedQuery& query : data_) query.reference.assign(query.prompts.size(), 0);
  const Figures none = prepared();
  EXPECT_EQ(figure(ten, "ndcg_10"), figure(own, "ndcg_10"));  // the same samples
  EXPECT_NE(figure(ten, "reward"), figure(none, "reward"));
  EXPECT_EQ(figure(ten, "reward_positive"), figure(none, "reward_positive"));
  EXPECT_NE(figure(ten, "reward_otherwise"), figure(none, "reward_otherwise"));
  EXPECT_EQ(figure(ten, "reference_ndcg_10"), figure(none, "reference_ndcg_10"));  // all tied
}

// Of two modes the first one draws as it does alone, and is ranked and rewarded as if alone.
TEST(TinyTwoModes, AreRewardedEachByItself) {
  const ToyRanking toy(rank::random_checkpoint("two_modes"));
  auto data = ToyRanking::queries(1, 4, 4);
  const auto figures_of = [&](std::vector<rank::Mode> modes, int num_samples) {
    RolloutObjectiveOptions options;
    options.rollouts = {std::move(modes), num_samples, 12};
    RolloutObjective objective(data, {.iterations = 1, .kl_coef = 0}, options, toy.model_format(),
                               nullptr);
    const auto parameters = toy.parameters();
    TreeForward forward(*parameters);
    const std::function<bool()> stop = kNever;
    const at::NoGradGuard no_grad;
    std::map<std::string, double> figures;
    for (const auto& [name, value] :
         objective.prepare({*parameters, forward}, 0, {nullptr, stop}).figures)
      figures[name] = value;
    return figures;
  };
  constexpr auto kDirect = rank::Mode::kDirect, kThink = rank::Mode::kThink;
  for (const bool direct_first : {true, false}) {
    auto alone = figures_of({direct_first ? kDirect : kThink}, 3);
    auto both = direct_first ? figures_of({kDirect, kThink}, 6) : figures_of({kThink, kDirect}, 6);
    const std::string mode = direct_first ? "_direct" : "_think";
    for (const std::string key :
         {"reward", "ndcg_10", "unformatted", "rollout_tokens", "reference_ndcg_10"}) {
      ASSERT_TRUE(alone.contains(key) && both.contains(key + mode)) << key;
      EXPECT_DOUBLE_EQ(both[key + mode], alone[key]) << key;
    }
    EXPECT_DOUBLE_EQ(both["reward"], (both["reward_direct"] + both["reward_think"]) / 2);
  }
}

class TinySampledToy : public ::testing::TestWithParam<text::Scale> {};

TEST_P(TinySampledToy, IsLearned) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const bool ten = GetParam() == text::Scale::kZeroToTen;
  ToyRanking toy(rank::random_checkpoint("sampled_toy"), GetParam());
  toy.warm_up(60);
  TestFolder folder;
  TrainOptions train;
  train.lora.reset();
  train.schedule = {.peak = 0.003, .warmup_ratio = 0, .constant = true};
  train.gemm_peak = 1e10;
  train.checkpoint_steps = 0;
  const auto learned = [&](Reward reward, double rate) {
    train.schedule.peak = rate;
    GrpoOptions grpo{.iterations = 30, .queries_per_iteration = 24, .mini_batch = 36};
    grpo.reward.reward = reward;
    auto data = ToyRanking::queries(1, ToyRanking::kQueries);
    if (reward == Reward::kSe)
      for (RankedQuery& query : data)
        for (const int grade : query.grades) query.reference.push_back(grade);
    RolloutObjective objective(std::move(data), grpo, {}, toy.model_format(), toy.held_out());
    const auto parameters = toy.parameters();
    objective.freeze_reference(*parameters, true);
    const std::string run = folder.path(base::str(static_cast<int>(reward), rate));
    Trainer trainer(*parameters, objective, train, run, {});
    const double metric = trainer.run(nullptr, kNever).last_metric.value();
    const auto gap = score_gap(run + "/log.jsonl");
    if (rate > 0) {
      EXPECT_GT(gap.back(), gap.front());
    }
    return metric;
  };
  if (ten) {
    EXPECT_GE(learned(Reward::kRr, 0.003), 0.95);
    EXPECT_GE(learned(Reward::kNdcg, 0.003), 0.95);
    EXPECT_LE(learned(Reward::kRr, -0.001), 0.7);  // the wrong sign
  } else {
    EXPECT_GE(learned(Reward::kSe, 0.003), 0.95);
  }
  at::set_num_threads(threads);
}

INSTANTIATE_TEST_SUITE_P(Tiny, TinySampledToy,
                         ::testing::Values(text::Scale::kZeroToTen, text::Scale::kYesNo),
                         [](const auto& info) {
                           return base::str("To", text::max_answer(info.param));
                         });

INSTANTIATE_TEST_SUITE_P(Tiny, TinyRolloutObjective,
                         ::testing::Values(Written::kDirect, Written::kThink, Written::kBoth),
                         [](const auto& info) {
                           return info.param == Written::kDirect  ? "Direct"
                                  : info.param == Written::kThink ? "Think"
                                                                  : "Both";
                         });

}  // namespace
}  // namespace erank::train
