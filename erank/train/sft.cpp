#include "erank/train/sft.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/train/log_probs.h"
#include "erank/train/loss.h"

namespace erank::train {
SftObjective::SftObjective(std::vector<Example> examples, const SftOptions& options,
                           std::unique_ptr<RankingValidation> validation)
    : examples_(std::move(examples)), options_(options), validation_(std::move(validation)) {
  ERANK_CHECK(!examples_.empty() && options.batch_size > 0 && options.group_size > 0);
  if (!(options.epochs > 0 && options.epochs <= 10000))
    base::fail(base::ErrorKind::kInvalidInput, "--epochs", "is ", options.epochs,
               ", expected a number over 0 and up to 10000");
  if (!(options.rank_weight >= 0 && options.rank_weight <= 1e6))
    base::fail(base::ErrorKind::kInvalidInput, "--rank-weight", "is ", options.rank_weight,
               ", expected a number from 0 to 1000000");
  if (!(options.rank.temperature >= 0.01 && options.rank.temperature <= 1000))
    base::fail(base::ErrorKind::kInvalidInput, "--rank-temperature", "is ",
               options.rank.temperature, ", expected a number from 0.01 to 1000");
  if (options.max_steps < 0)
    base::fail(base::ErrorKind::kInvalidInput, "--max-steps", "is ", options.max_steps,
               ", expected 0 or more");
  std::unordered_map<std::string, size_t> numbers;
  for (size_t i = 0; i < examples_.size(); ++i) {
    const auto [it, fresh] = numbers.emplace(examples_[i].qid, queries_.size());
    if (fresh) queries_.emplace_back();
    queries_[it->second].push_back(i);
  }
  prepare_epoch(0);
  steps_per_epoch_ = static_cast<int64_t>(step_starts_.size()) - 1;
  num_steps_ =
      std::max<int64_t>(1, std::llround(options_.epochs * static_cast<double>(steps_per_epoch_)));
  if (options_.max_steps > 0) num_steps_ = std::min(num_steps_, options_.max_steps);
}

// Every epoch has the same number of steps, ceil(examples / batch size), whatever the order of its
// groups: a step ends with the group that brings it nearest to its batches, and has at least one.
void SftObjective::prepare_epoch(int64_t epoch) const {
  if (cached_epoch_ == epoch) return;
  base::Random random(base::derived_seed(options_.seed, static_cast<uint64_t>(epoch)));
  epoch_groups_.clear();
  for (const auto& query : queries_) {
    std::vector<size_t> order = query;
    base::shuffle(order, random);
    const auto size = static_cast<size_t>(std::min(options_.group_size, options_.batch_size));
    for (size_t i = 0; i < order.size(); i += size) {
      Group group;
      for (size_t j = i; j < std::min(order.size(), i + size); ++j)
        group.push_back(&examples_[order[j]]);
      epoch_groups_.push_back(std::move(group));
    }
  }
  base::shuffle(epoch_groups_, random);
  const auto batch = static_cast<size_t>(options_.batch_size);
  const size_t steps = (examples_.size() + batch - 1) / batch;
  step_starts_.assign(1, 0);
  size_t next = 0, taken = 0;
  for (size_t i = 1; i < steps; ++i) {
    const size_t last = epoch_groups_.size() - (steps - i);
    do taken += epoch_groups_[next++].size();
    while (next < last && taken + epoch_groups_[next].size() / 2 < i * batch);
    step_starts_.push_back(next);
  }
  step_starts_.push_back(epoch_groups_.size());
  cached_epoch_ = epoch;
}

std::vector<Group> SftObjective::groups_of(int64_t step) const {
  prepare_epoch(step / steps_per_epoch_);
  const auto i = static_cast<size_t>(step % steps_per_epoch_);
  return {epoch_groups_.begin() + static_cast<int64_t>(step_starts_[i]),
          epoch_groups_.begin() + static_cast<int64_t>(step_starts_[i + 1])};
}

int64_t SftObjective::num_tokens(int64_t first_step, int64_t last_step) const {
  int64_t tokens = 0;
  for (int64_t step = first_step; step < last_step; ++step)
    for (const MicroBatch& micro : pack(groups_of(step), options_.packing))
      tokens += micro.num_tokens;
  return tokens;
}

StepStats SftObjective::accumulate(const TrainedModel& model, int64_t step,
                                   const std::function<void(const at::Tensor&)>& backward) {
  StepStats stats;
  const auto groups = groups_of(step);
  for (const Group& group : groups)
    for (const Example* example : group) {
      ++stats.num_examples;
      for (const Branch& branch : example->branches) stats.num_learned += branch.num_learned;
    }
  std::vector<int64_t> costs;
  for (const Group& group : groups) costs.push_back(train::num_tokens(group));
  std::vector<Group> own;
  for (const size_t i : own_share(costs, model.ranks)) own.push_back(groups[i]);
  const bool rank = options_.rank.kind != RankLoss::kNone;
  DeviceSum loss_sum, rank_sum;
  for (const MicroBatch& micro : pack(own, options_.packing, groups)) {
    const at::Tensor logits = model.forward.forward(micro.batch);
    std::vector<LossTerm> terms;
    for (const LossTerm& term : micro.terms)
      if (term.weight != 0) terms.push_back(term);
    at::Tensor loss = answer_loss(logits, terms);
    stats.num_tokens += micro.num_tokens;
    stats.num_rows += std::ssize(micro.batch.rows);
    if (rank) {
      const at::Tensor part = rank_loss_of(logits, micro) / static_cast<double>(groups.size());
      rank_sum.add(part);
      loss = loss + options_.rank_weight * part;
    }
    loss_sum.add(loss);
    backward(loss);
  }
  stats.loss += loss_sum.value();
  double rank_loss = rank_sum.value();
  all_sum(model.ranks, {&stats.loss, &rank_loss});
  all_sum(model.ranks, {&stats.num_tokens, &stats.num_rows});
  if (rank) stats.figures = {{"rank_loss", rank_loss}};
  return stats;
}

// The sum over the pass's groups.
at::Tensor SftObjective::rank_loss_of(const at::Tensor& logits, const MicroBatch& pass) const {
  AnswerRows rows;
  rows.tokens = options_.answers;
  ERANK_CHECK(!rows.tokens.empty());
  std::vector<double> targets;
  size_t first = 0;  // the example's terms
  for (const Example* example : pass.examples) {
    ERANK_CHECK(example->rank_term >= 0, "no rank terms");
    const size_t term = first + static_cast<size_t>(example->rank_term);
    rows.first.push_back(pass.terms[term].row);
    if (rows.tokens.size() == 10) rows.after_one.push_back(pass.terms[term + 1].row);
    targets.push_back(example->score);
    for (const Branch& branch : example->branches) first += branch.terms.size();
  }
  const at::Tensor z = expected_scores(answer_log_probs(logits, rows));
  return rank_loss(z, at::tensor(targets).to(z.options()), pass.sizes, options_.rank);
}

std::optional<Figures> SftObjective::validate(const TrainedModel& model,
                                              const WorkControl& control) {
  if (!validation_) return Figures{};
  return validation_->measure(model.parameters, control, model.ranks);
}

}  // namespace erank::train
