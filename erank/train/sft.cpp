#include "erank/train/sft.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_map>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/eval/measures.h"
#include "erank/text/score_distribution.h"
#include "erank/train/loss.h"

namespace erank::train {
namespace {

template <typename T>
void shuffle(std::vector<T>& values, base::Random& random) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i)]);
}

}  // namespace

RankingValidation::RankingValidation(std::vector<List> lists, data::Qrels qrels,
                                     std::array<int32_t, 10> digits, int64_t max_tokens)
    : qrels_(std::move(qrels)), digits_(digits), max_tokens_(max_tokens) {
  for (List& list : lists)
    if (qrels_.grades.contains(list.qid) && !list.prompts.empty())
      lists_.push_back(std::move(list));
  if (lists_.empty())
    base::fail(base::ErrorKind::kInvalidInput, "--validation",
               "no query of the candidates has a judgement; do their ids agree with the qrels'?");
}

// Scores as serving reads them: the ten digits behind the prompt, and "0" behind "1".
double RankingValidation::measure(model::Decoder& decoder, base::ProgressSink* progress) const {
  const at::NoGradGuard no_grad;
  data::Run run;
  int64_t done = 0, total = 0;
  for (const List& list : lists_) total += static_cast<int64_t>(list.prompts.size());
  for (const List& list : lists_) {
    run.qids.push_back(list.qid);
    std::vector<Example> examples(list.prompts.size());
    std::vector<double> scores(list.prompts.size());
    Group group;
    for (size_t i = 0; i < examples.size(); ++i) {
      // Behind the prompt stands "1" alone: what its two rows say is all that is read.
      examples[i].prompt = list.prompts[i];
      examples[i].branches = {{{digits_[1]}, {{0, 0}, {1, 0}}}};
      group.push_back(&examples[i]);
    }
    for (const MicroBatch& micro : pack({group}, {Weighting::kTokens, max_tokens_})) {
      const at::Tensor p =
          at::softmax(decoder.forward(micro.batch, nullptr), 1).to(at::kCPU).contiguous();
      const float* values = p.const_data_ptr<float>();
      for (size_t i = 0; i < micro.examples.size(); ++i) {
        const float* one = values + micro.terms[2 * i].row * p.size(1);
        const float* behind = values + micro.terms[2 * i + 1].row * p.size(1);
        std::array<double, 10> digits{};
        for (size_t d = 0; d < 10; ++d) digits[d] = one[digits_[d]];
        const auto distribution =
            text::ScoreDistribution::from_digits(digits, behind[digits_[0]], false);
        scores[static_cast<size_t>(micro.examples[i] - examples.data())] = distribution.expected();
      }
      done += static_cast<int64_t>(micro.examples.size());
      if (progress) progress->update({"validate", done, total, "pairs", ""});
    }
    // Ties keep the first stage's order; with places as scores the measure has none to break.
    std::vector<size_t> order(scores.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    auto& hits = run.hits[list.qid];
    for (const size_t at : order)
      hits.push_back({list.docids[at], -static_cast<double>(hits.size())});
  }
  const auto evaluation = eval::evaluate(qrels_, run, eval::parse_measures({"nDCG@10"}));
  return evaluation.summary.front();
}

SftObjective::SftObjective(std::vector<Example> examples, const SftOptions& options,
                           std::unique_ptr<RankingValidation> validation)
    : examples_(std::move(examples)), options_(options), validation_(std::move(validation)) {
  ERANK_CHECK(!examples_.empty() && options.batch_size > 0 && options.group_size > 0);
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
    shuffle(order, random);
    const auto size = static_cast<size_t>(std::min(options_.group_size, options_.batch_size));
    for (size_t i = 0; i < order.size(); i += size) {
      Group group;
      for (size_t j = i; j < std::min(order.size(), i + size); ++j)
        group.push_back(&examples_[order[j]]);
      epoch_groups_.push_back(std::move(group));
    }
  }
  shuffle(epoch_groups_, random);
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

StepStats SftObjective::accumulate(model::Decoder& decoder, int64_t step,
                                   const std::function<void(const at::Tensor&)>& backward) {
  StepStats stats;
  const auto groups = groups_of(step);
  for (const Group& group : groups)
    for (const Example* example : group) {
      ++stats.num_examples;
      for (const Branch& branch : example->branches) stats.num_learned += branch.num_learned;
    }
  for (const MicroBatch& micro : pack(groups, options_.packing)) {
    const at::Tensor loss = answer_loss(decoder.forward(micro.batch, nullptr), micro.terms);
    stats.loss += loss.item<double>();
    stats.num_tokens += micro.num_tokens;
    backward(loss);
  }
  return stats;
}

std::optional<double> SftObjective::validate(model::Decoder& decoder,
                                             base::ProgressSink* progress) {
  if (!validation_) return std::nullopt;
  return validation_->measure(decoder, progress);
}

}  // namespace erank::train
