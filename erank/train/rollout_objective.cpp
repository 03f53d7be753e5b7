#include "erank/train/rollout_objective.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/data/safetensors.h"
#include "erank/model/tensor_file.h"
#include "erank/train/advantages.h"
#include "erank/train/loss.h"
#include "erank/train/packing.h"

namespace erank::train {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr const char* kReferenceAdapter = "reference";

// Of tokens' ratios of the trainer's probability to the engine's, on the same weights.
struct Drift {
  double count = 0, sum = 0, squares = 0, log_sum = 0;

  void add(const at::Tensor& trainer, const at::Tensor& engine) {
    const at::Tensor logs = (trainer.detach() - engine).to(at::kDouble), ratios = logs.exp() - 1;
    count += static_cast<double>(logs.numel());
    sum += ratios.sum().item<double>(), squares += ratios.pow(2).sum().item<double>();
    log_sum += logs.abs().sum().item<double>();
  }
  double mean_ratio() const { return 1 + sum / count; }
  // The mean ratio of few tokens differs from 1 by rounding alone: three of its standard errors are
  // allowed more. Samples of another distribution can have a mean ratio of 1 too, so the mean
  // absolute logarithm has a limit of its own.
  std::string reason_to_halt(at::ScalarType dtype) const {
    const bool single = dtype == at::kFloat;
    const double limit = single ? 1e-5 : 1e-3, log_limit = single ? 1e-3 : 0.1;
    const double mean = sum / count,
                 spread = std::sqrt(std::max(0.0, squares / count - mean * mean));
    const double allowed = limit + 3 * spread / std::sqrt(count), logs = log_sum / count;
    if (std::abs(mean) <= allowed && logs <= log_limit) return "";
    return base::str("the engine's log-probabilities are not the trainer's: the mean ratio is ",
                     mean_ratio(), ", expected 1 within ", allowed,
                     ", and the logarithms differ by ", logs, " on average, expected up to ",
                     log_limit, "; --precision fp32 may help");
  }
};

double mean_of(const std::vector<double>& values) {
  return values.empty() ? 0
                        : std::accumulate(values.begin(), values.end(), 0.0) /
                              static_cast<double>(values.size());
}

struct Rows {
  at::Tensor rows, tokens;
};

Rows rows_of(const std::vector<LossTerm>& terms, at::Device device) {
  std::vector<int64_t> rows, tokens;
  for (const LossTerm& term : terms) rows.push_back(term.row), tokens.push_back(term.token);
  return {at::tensor(rows).to(device), at::tensor(tokens).to(device)};
}

}  // namespace

RolloutObjective::RolloutObjective(std::vector<RankedQuery> queries, const GrpoOptions& options,
                                   const RolloutObjectiveOptions& rollouts, ModelFormat format,
                                   std::unique_ptr<RankingValidation> validation)
    : GrpoObjective(std::move(queries), options,
                    {.modes = rollouts.rollouts.modes,
                     .max_think_tokens = rollouts.rollouts.max_think_tokens},
                    format, std::move(validation)),
      sampler_options_(rollouts),
      sampler_(format, rollouts.rollouts) {
  sampler_options_.loss.kl_coef = options.kl_coef;
  const text::Ids &first = format.context_close(modes().front()),
                  &last = format.context_close(modes().back());
  common_close_ =
      std::mismatch(first.begin(), first.end(), last.begin(), last.end()).first - first.begin();
}

Example RolloutObjective::open_example(const std::string& qid, const text::Ids& prompt) const {
  Example example{qid, prompt, {}};
  const text::Ids& close = format_.context_close(modes().front());
  example.prompt.insert(example.prompt.end(), close.begin(),
                        close.begin() + static_cast<int64_t>(common_close_));
  return example;
}

text::Ids RolloutObjective::opening(size_t mode) const {
  const text::Ids& close = format_.context_close(modes()[mode]);
  return {close.begin() + static_cast<int64_t>(common_close_), close.end()};
}

void RolloutObjective::freeze_reference(model::Parameters& parameters, bool full) {
  if (options_.kl_coef == 0) return;
  const at::NoGradGuard no_grad;
  if (full) {
    frozen_ = std::make_unique<model::Parameters>(parameters.config(), parameters.dtype(),
                                                  parameters.device());
    const auto from = parameters.named(), to = frozen_->named();
    for (size_t i = 0; i < from.size(); ++i) to[i].tensor.copy_(from[i].tensor);
    return;
  }
  const model::Adapter* trained = parameters.adapter(kTrainedAdapter);
  if (!trained) return;
  model::Adapter copy = *trained;
  for (auto& layer : copy.layers) {
    layer.lora.a = layer.lora.a.detach().clone();
    layer.lora.b = layer.lora.b.detach().clone();
  }
  parameters.add_adapter(kReferenceAdapter, std::move(copy));
  parameters.activate(kTrainedAdapter);
  frozen_adapter_ = kReferenceAdapter;
}

// Pairs with their rollouts as examples: a branch a rollout, a term a token.
struct RolloutObjective::Batch {
  std::vector<Example> examples;
  std::vector<size_t> pairs;  // each example's place among the iteration's pairs
  std::vector<MicroBatch> passes;

  size_t pair_of(const Example* example) const { return pairs[example - examples.data()]; }
};

RolloutObjective::Batch RolloutObjective::make_batch(const std::vector<size_t>& queries) const {
  Batch batch;
  size_t place = 0;
  for (const size_t q : queries_of(iteration_)) {
    const RankedQuery& query = queries_[q];
    const bool wanted = std::find(queries.begin(), queries.end(), q) != queries.end();
    for (const text::Ids& prompt : query.prompts) {
      const size_t pair = place++;
      if (!wanted) continue;
      Example example = open_example(query.qid, prompt);
      for (int64_t g = 0; g < num_samples(); ++g) {
        const text::Ids& tokens = rollouts_.rollouts[pair * num_samples() + g].tokens;
        Branch branch{opening(g / samples_in_mode()), {}, std::ssize(tokens)};
        const size_t first = branch.ids.size();
        branch.ids.insert(branch.ids.end(), tokens.begin(), tokens.end() - 1);
        for (size_t t = 0; t < tokens.size(); ++t)
          branch.terms.push_back({static_cast<int32_t>(first + t), tokens[t]});
        example.branches.push_back(std::move(branch));
      }
      batch.examples.push_back(std::move(example));
      batch.pairs.push_back(pair);
    }
  }
  batch.passes = pack(groups_by_query(batch.examples), {.max_tokens = options_.max_pass_tokens});
  return batch;
}

// [tokens of the iteration], in the rollouts' order; 0 outside the batch's queries.
std::vector<float> RolloutObjective::forward_log_probs(TreeForward& forward,
                                                       const Batch& batch) const {
  const at::NoGradGuard no_grad;
  forward.set_training(false);
  std::vector<size_t> first = {0};  // token of each rollout
  for (const Rollout& rollout : rollouts_.rollouts)
    first.push_back(first.back() + rollout.tokens.size());
  std::vector<float> result(first.back());
  for (const MicroBatch& pass : batch.passes) {
    const at::Tensor hidden = forward.hidden(pass.batch);
    const Rows rows = rows_of(pass.terms, hidden.device());
    const at::Tensor of_pass = forward.log_probs(hidden, rows.rows, rows.tokens).cpu().contiguous();
    const float* values = of_pass.const_data_ptr<float>();
    for (const Example* example : pass.examples) {
      const size_t begin = first[batch.pair_of(example) * num_samples()],
                   end = first[(batch.pair_of(example) + 1) * num_samples()];
      std::copy(values, values + (end - begin), result.begin() + static_cast<int64_t>(begin));
      values += end - begin;
    }
  }
  return result;
}

std::vector<float> RolloutObjective::reference_log_probs(const TrainedModel& model,
                                                         const Batch& batch) const {
  if (options_.kl_coef == 0) return {};
  if (frozen_) {
    TreeForward forward(*frozen_);
    forward.set_head_fp32(model.forward.head_fp32());
    return forward_log_probs(forward, batch);
  }
  ERANK_CHECK(model.parameters.active() == kTrainedAdapter, "no reference: freeze_reference()");
  model.parameters.activate(frozen_adapter_);
  auto result = forward_log_probs(model.forward, batch);
  model.parameters.activate(kTrainedAdapter);
  return result;
}

// Fills the advantages from the rollouts' scores. A query's documents are ranked in each mode by
// itself.
Figures RolloutObjective::reward_rollouts() {
  const auto queries = queries_of(iteration_);
  const size_t num_modes = modes().size(), in_mode = samples_in_mode(), size = num_samples();
  std::vector<double> rewards(rollouts_.rollouts.size()), by_case[4];
  std::vector<Figures> of_modes;
  double ndcg = 0, unformatted = 0;
  std::array<double, 2> score_sum{}, num_scored{};  // of other documents, of relevant ones
  for (size_t mode = 0; mode < num_modes; ++mode) {
    std::vector<std::vector<double>> scores;
    double sum = 0, num_unformatted = 0, count = 0, tokens = 0;
    size_t pair = 0;  // of the query's first document
    for (const size_t q : queries) {
      const size_t n = queries_[q].prompts.size();
      std::vector<int> table;
      scores.emplace_back();
      for (size_t i = 0; i < n; ++i) {
        double total = 0, formatted = 0;
        for (size_t g = 0; g < in_mode; ++g) {
          const Rollout& rollout = rollouts_.rollouts[(pair + i) * size + mode * in_mode + g];
          table.push_back(rollout.score);
          tokens += static_cast<double>(rollout.tokens.size());
          if (rollout.score != kUnformatted) total += rollout.score, ++formatted;
        }
        scores.back().push_back(formatted > 0 ? total / formatted : -1);
        const bool relevant = queries_[q].grades[i] >= options_.reward.positive_grade;
        score_sum[relevant] += total, num_scored[relevant] += formatted;
      }
      const RolloutRewards of_query =
          rollout_rewards(reward_table(q, mode, samples_in_mode()), table);
      for (size_t i = 0; i < of_query.values.size(); ++i) {
        const double reward = of_query.values[i];
        rewards[(pair + i / in_mode) * size + mode * in_mode + i % in_mode] = reward;
        by_case[static_cast<size_t>(of_query.cases[i])].push_back(reward);
        num_unformatted += of_query.cases[i] == RewardCase::kUnformatted;
        sum += reward, ++count;
      }
      pair += n;
    }
    const double of_mode = ndcg_10(queries, std::move(scores));
    ndcg += of_mode / static_cast<double>(num_modes);
    unformatted = std::max(unformatted, num_unformatted / count);
    if (num_modes > 1)
      of_modes.push_back({{name_of("reward", mode), sum / count},
                          {name_of("ndcg_10", mode), of_mode},
                          {name_of("unformatted", mode), num_unformatted / count},
                          {name_of("rollout_tokens", mode), tokens / count}});
  }
  nothing_formatted_ = unformatted == 1;
  Advantages advantages = group_advantages(rewards, samples_in_mode(), options_.divide_by_std);
  advantages_ = std::move(advantages.values);

  const auto count = static_cast<double>(rewards.size());
  const double mean = mean_of(rewards);
  double variance = 0, overlong = 0;
  for (const double reward : rewards) variance += (reward - mean) * (reward - mean) / count;
  for (const Rollout& rollout : rollouts_.rollouts) overlong += rollout.overlong;
  Figures figures = {{"reward", mean}, {"ndcg_10", ndcg}, {"reward_std", std::sqrt(variance)}};
  constexpr const char* kNames[] = {"reward_positive", "reward_above_positive", "reward_otherwise"};
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (!by_case[i].empty()) figures.emplace_back(kNames[i], mean_of(by_case[i]));
  if (num_scored[1] > 0) figures.emplace_back("score_positive", score_sum[1] / num_scored[1]);
  if (num_scored[0] > 0) figures.emplace_back("score_negative", score_sum[0] / num_scored[0]);
  const auto num_unformatted =
      static_cast<double>(by_case[static_cast<size_t>(RewardCase::kUnformatted)].size());
  figures.emplace_back("unformatted", num_unformatted / count);
  figures.emplace_back("overlong", overlong / count);
  figures.emplace_back("flat_groups", static_cast<double>(advantages.num_flat) /
                                          (count / static_cast<double>(samples_in_mode())));
  figures.emplace_back("rollout_tokens", static_cast<double>(rollouts_.num_tokens()) / count);
  for (Figures& of_mode : of_modes) figures.insert(figures.end(), of_mode.begin(), of_mode.end());
  return figures;
}

Preparation RolloutObjective::prepare(const TrainedModel& model, int64_t step,
                                      const WorkControl& control) {
  const int64_t iteration = step / steps_per_iteration();
  Preparation result = prepare_reference(model, step, control);
  if (!result.complete || iteration_ == iteration) return result;
  ERANK_CHECK(step % steps_per_iteration() == 0, "an iteration without its rollouts");
  iteration_ = -1;
  serving_->load(model.parameters);
  const uint64_t seed =
      base::derived_seed(options_.seed ^ 0x6b1f, static_cast<uint64_t>(iteration));
  const auto own = own_of(queries_of(iteration), model.ranks);
  std::vector<RolloutSampler::Prompt> prompts;
  std::vector<uint8_t> mine;  // of each rollout of the iteration
  for (const size_t q : queries_of(iteration)) {
    const RankedQuery& query = queries_[q];
    const bool drawn = std::find(own.begin(), own.end(), q) != own.end();
    mine.insert(mine.end(), query.prompts.size() * static_cast<size_t>(num_samples()), drawn);
    for (size_t i = 0; drawn && i < query.prompts.size(); ++i)
      prompts.push_back({&query.prompts[i], base::pair_seed(seed, query.qid, query.docids[i])});
  }
  auto start = Clock::now();
  const int64_t total = std::ssize(prompts) * num_samples();
  int64_t done = 0;
  const int64_t before = serving_->engine().stats().computed_tokens;
  const std::vector<Rollout> sampled = sampler_.sample(
      *serving_, prompts,
      [&] {
        ++done;
        if (control.progress) control.progress->update({"sample", done, total, "rollouts", ""});
      },
      control.stop);
  if (any(model.ranks, sampled.empty() && !prompts.empty())) return {.complete = false};
  std::vector<Rollout> rollouts(mine.size());
  for (size_t i = 0, next = 0; i < mine.size(); ++i)
    if (mine[i]) rollouts[i] = sampled[next++];
  exchange_rollouts(model.ranks, mine, rollouts);
  const double sampling = seconds_since(start);
  int64_t computed = serving_->engine().stats().computed_tokens - before;
  rollouts_ = {std::move(rollouts), {}, {}};
  iteration_ = iteration;
  start = Clock::now();
  const Batch batch = make_batch(own);
  if (sampler_options_.loss.rollout_correction) {
    rollouts_.old_log_probs = forward_log_probs(model.forward, batch);
    all_sum(model.ranks, rollouts_.old_log_probs);
  } else {
    for (const Rollout& rollout : rollouts_.rollouts)
      rollouts_.old_log_probs.insert(rollouts_.old_log_probs.end(), rollout.log_probs.begin(),
                                     rollout.log_probs.end());
  }
  rollouts_.reference_log_probs = reference_log_probs(model, batch);
  all_sum(model.ranks, rollouts_.reference_log_probs);
  const Figures rewards = reward_rollouts();
  result.figures.insert(result.figures.begin(), rewards.begin(), rewards.end());
  int64_t needed = 0;  // when what prompts and samples share is computed once
  for (const MicroBatch& pass : batch.passes) needed += pass.num_tokens;
  all_sum(model.ranks, {&computed, &needed});
  result.figures.emplace_back("computed_per_needed",
                              static_cast<double>(computed) / static_cast<double>(needed));
  result.figures.emplace_back("sampling_seconds", sampling);
  result.figures.emplace_back("sampling_tokens_per_s",
                              static_cast<double>(rollouts_.num_tokens()) / sampling);
  result.figures.emplace_back("reference_seconds", seconds_since(start));
  if (nothing_formatted_) result.halt = unformatted_reason();
  return result;
}

StepStats RolloutObjective::accumulate(const TrainedModel& model, int64_t step,
                                       const std::function<void(const at::Tensor&)>& backward) {
  ERANK_CHECK(iteration_ == step / steps_per_iteration());
  model.forward.set_training(false);  // dropout would make another policy
  const Batch batch = make_batch(own_of(mini_batch(step), model.ranks));
  std::vector<size_t> first = {0};
  for (const Rollout& rollout : rollouts_.rollouts)
    first.push_back(first.back() + rollout.tokens.size());
  StepStats stats;
  std::vector<PolicySequences> sequences;
  PolicyCounts counts;
  for (const MicroBatch& pass : batch.passes) {
    PolicySequences& of_pass = sequences.emplace_back();
    std::vector<float> old, reference, sampler;
    for (const Example* example : pass.examples)
      for (int64_t g = 0; g < num_samples(); ++g) {
        const size_t r = batch.pair_of(example) * num_samples() + g;
        const Rollout& rollout = rollouts_.rollouts[r];
        of_pass.lengths.push_back(std::ssize(rollout.tokens));
        of_pass.advantages.push_back(advantages_[r]);
        of_pass.overlong.push_back(rollout.overlong);
        for (size_t t = first[r]; t < first[r + 1]; ++t) {
          old.push_back(rollouts_.old_log_probs[t]);
          if (!rollouts_.reference_log_probs.empty())
            reference.push_back(rollouts_.reference_log_probs[t]);
        }
        sampler.insert(sampler.end(), rollout.log_probs.begin(), rollout.log_probs.end());
      }
    of_pass.sampled.assign(old.size(), 1);
    const at::Device device = model.parameters.device();
    of_pass.old_log_probs = at::tensor(old).to(device);
    if (!reference.empty()) of_pass.reference_log_probs = at::tensor(reference).to(device);
    of_pass.sampler_log_probs = at::tensor(sampler).to(device);
    counts += count_learned(of_pass, sampler_options_.loss);
  }
  stats.num_examples = std::ssize(batch.examples);
  all_sum(model.ranks, {&stats.num_examples, &counts.num_tokens, &counts.num_sequences});
  stats.num_learned = counts.num_tokens;
  const bool compare = !compared_ && step % steps_per_iteration() == 0;
  Drift drift;
  PolicyFigures figures;
  DeviceSum loss_sum;
  for (size_t i = 0; i < batch.passes.size(); ++i) {
    const MicroBatch& pass = batch.passes[i];
    stats.num_tokens += pass.num_tokens;
    stats.num_rows += std::ssize(pass.batch.rows);
    const at::Tensor hidden = model.forward.hidden(pass.batch);
    const Rows rows = rows_of(pass.terms, hidden.device());
    at::Tensor entropies;
    const at::Tensor now = model.forward.log_probs(hidden, rows.rows, rows.tokens, &entropies);
    if (compare) drift.add(now, sequences[i].sampler_log_probs);
    if (counts.num_tokens == 0) continue;  // every rollout is overlong and masked
    const PolicyLoss loss = policy_loss(now, sequences[i], counts, sampler_options_.loss,
                                        entropies.index_select(0, rows.rows));
    loss_sum.add(loss.loss);
    figures += loss.figures;
    backward(loss.loss);
  }
  stats.loss += loss_sum.value();
  all_sum(model.ranks, {&stats.loss, &drift.count, &drift.sum, &drift.squares, &drift.log_sum});
  all_sum(model.ranks, {&stats.num_tokens, &stats.num_rows});
  all_sum(model.ranks, figures);
  const auto share = [&](int64_t n) { return figures.mean(static_cast<double>(n)); };
  if (options_.kl_coef != 0) stats.figures.emplace_back("kl", figures.mean(figures.kl));
  const Figures more = {{"entropy", figures.mean(figures.entropy)},
                        {"ratio", figures.mean(figures.ratio)},
                        {"clipped_low", share(figures.clipped_low)},
                        {"clipped_high", share(figures.clipped_high)},
                        {"clipped_dual", share(figures.clipped_dual)}};
  stats.figures.insert(stats.figures.end(), more.begin(), more.end());
  if (figures.count > 0) {
    stats.figures.emplace_back("ratio_min", figures.ratio_min);
    stats.figures.emplace_back("ratio_max", figures.ratio_max);
  }
  if (figures.count > 0)
    stats.halt = reason_to_halt(figures.mean(figures.kl), figures.mean(figures.entropy));
  if (compare) {
    compared_ = true;
    stats.figures.emplace_back("sampler_ratio", drift.mean_ratio());
    stats.figures.emplace_back("sampler_difference", drift.log_sum / drift.count);
    if (stats.halt.empty()) stats.halt = drift.reason_to_halt(model.parameters.dtype());
  }
  return stats;
}

GrpoObjective::Work RolloutObjective::work(int64_t step) const {
  std::vector<Example> examples;
  for (const size_t q : mini_batch(step))
    for (const text::Ids& prompt : queries_[q].prompts) {
      Example& example = examples.emplace_back(open_example(queries_[q].qid, prompt));
      for (size_t mode = 0; mode < modes().size(); ++mode) {
        const int64_t longest =
            modes()[mode] == rank::Mode::kThink ? max_think_tokens() : answer_tokens();
        Branch branch{opening(mode), {}};
        for (int64_t t = 0; t < longest; ++t) {
          branch.terms.push_back({static_cast<int32_t>(branch.ids.size()), prompt[0]});
          if (t + 1 < longest) branch.ids.push_back(prompt[0]);
        }
        example.branches.insert(example.branches.end(), samples_in_mode(), branch);
      }
    }
  // Besides the step itself once through the engine, and once through each network that says how
  // probable the samples are.
  const int others = (options_.kl_coef != 0) + sampler_options_.loss.rollout_correction;
  Work work;
  for (const MicroBatch& pass :
       pack(groups_by_query(examples), {.max_tokens = options_.max_pass_tokens})) {
    const auto rows = std::ssize(pass.batch.rows);
    work += {.learning_tokens = pass.num_tokens,
             .sampling_tokens = pass.num_tokens,
             .reference_tokens = others * pass.num_tokens,
             .learning_rows = rows,
             .reference_rows = others * rows,
             .pass_rows = rows};
  }
  return work;
}

bool RolloutObjective::save(const std::string& path, int64_t step) const {
  const bool needed = iteration_ >= 0 && step / steps_per_iteration() == iteration_;
  if (!needed) return save_tensors(path, step, {});
  auto more = rollouts_.tensors();
  more.push_back({"rollouts.iteration", at::tensor({static_cast<float>(iteration_)})});
  return save_tensors(path, step, more);
}

void RolloutObjective::load(const std::string& path) {
  has_reference_ = false, iteration_ = -1;
  const auto tensors = data::SafetensorsFile::open(path).tensors();
  const bool prepared = std::any_of(tensors.begin(), tensors.end(), [](const auto& info) {
    return info.name == "rollouts.iteration";
  });
  if (!prepared) {
    model::load_tensors(path, state_tensors());
  } else {
    auto others = state_tensors();
    const at::Tensor iteration = at::tensor({0.0f});
    others.push_back({"rollouts.iteration", iteration});
    std::vector<float> lengths;
    for (const auto& info : tensors)
      if (info.name == "rollouts.lengths" && info.shape.size() == 1)
        lengths.resize(static_cast<size_t>(info.shape[0]));
    RolloutTokens loaded = RolloutTokens::load(path, std::ssize(lengths), text::max_answer(scale()),
                                               std::move(others));
    const auto number = static_cast<int64_t>(iteration.item<float>());
    int64_t pairs = 0;
    if (number >= 0 && number < options_.iterations)
      for (const size_t q : queries_of(number)) pairs += std::ssize(queries_[q].prompts);
    if (pairs * num_samples() != std::ssize(loaded.rollouts) ||
        loaded.reference_log_probs.empty() != (options_.kl_coef == 0))
      base::fail(base::ErrorKind::kCorrupt, "--resume", path, ": rollouts of another iteration");
    rollouts_ = std::move(loaded);
    iteration_ = number;
    has_reference_ = true;  // rewards are computed anew from it
    reward_rollouts();
  }
  has_reference_ = true;
}

}  // namespace erank::train
