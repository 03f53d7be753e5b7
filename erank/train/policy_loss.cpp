#include "erank/train/policy_loss.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "erank/base/error.h"

namespace erank::train {
namespace {

constexpr double kLogRatioBound = 20, kKlBound = 10;
constexpr double kLeastRest = 1e-6;

// Which tokens are learned, and how many of each sequence.
struct Learned {
  std::vector<uint8_t> tokens;    // [T]
  std::vector<int64_t> of, each;  // [T] a token's sequence; [S] learned tokens

  Learned(const PolicySequences& sequences, const PolicyLossOptions& options)
      : tokens(sequences.sampled), each(sequences.lengths.size()) {
    ERANK_CHECK(sequences.advantages.size() == each.size() &&
                sequences.overlong.size() == each.size());
    const int64_t total =
        std::accumulate(sequences.lengths.begin(), sequences.lengths.end(), int64_t{0});
    ERANK_CHECK(std::ssize(tokens) == total, tokens.size(), " tokens of ", total);
    for (size_t s = 0; s < each.size(); ++s) {
      const bool masked = options.overlong == Overlong::kMask && sequences.overlong[s];
      for (int64_t i = 0; i < sequences.lengths[s]; ++i) {
        const size_t t = of.size();
        of.push_back(static_cast<int64_t>(s));
        if (masked) tokens[t] = 0;
        each[s] += tokens[t];
      }
    }
  }

  PolicyCounts counts() const {
    PolicyCounts counts;
    for (const int64_t n : each) {
      counts.num_tokens += n;
      counts.num_sequences += n > 0;
    }
    return counts;
  }

  // The share of the mini batch's loss that each token has.
  std::vector<double> weights(const PolicyCounts& counts, const PolicyLossOptions& options) const {
    std::vector<double> weights;
    for (size_t t = 0; t < tokens.size(); ++t) {
      double divisor = static_cast<double>(counts.num_tokens);
      if (options.aggregation != LossAggregation::kTokens)
        divisor = static_cast<double>(counts.num_sequences) *
                  static_cast<double>(options.aggregation == LossAggregation::kSequences
                                          ? each[of[t]]
                                          : options.constant_length);
      weights.push_back(tokens[t] ? 1 / divisor : 0);
    }
    return weights;
  }
};

at::Tensor bounded_exp(const at::Tensor& x) {
  return at::exp(at::clamp(x, -kLogRatioBound, kLogRatioBound));
}

at::Tensor kl_of(const at::Tensor& log_probs, const at::Tensor& reference) {
  const at::Tensor d = at::clamp(reference - log_probs, -kLogRatioBound, kLogRatioBound);
  return at::clamp(at::exp(d) - d - 1, -kKlBound, kKlBound);
}

// -> log rho [T] before its bounds.
at::Tensor log_ratio(const at::Tensor& log_probs, const PolicySequences& sequences,
                     const Learned& learned, RatioKind kind) {
  const at::Tensor difference = log_probs - sequences.old_log_probs;
  if (kind != RatioKind::kSequence) return difference;
  const auto options = difference.options();
  const auto num_sequences = std::ssize(learned.each);
  std::vector<double> shares;  // of a token in its sequence's mean
  for (size_t t = 0; t < learned.of.size(); ++t)
    shares.push_back(learned.tokens[t] ? 1 / static_cast<double>(learned.each[learned.of[t]]) : 0);
  const at::Tensor of = at::tensor(learned.of).to(options.device());
  return at::zeros({num_sequences}, options)
             .index_add(0, of, difference.detach() * at::tensor(shares).to(options))
             .index_select(0, of) +
         (log_probs - log_probs.detach());
}

}  // namespace

PolicyCounts& PolicyCounts::operator+=(const PolicyCounts& other) {
  num_tokens += other.num_tokens;
  num_sequences += other.num_sequences;
  return *this;
}

PolicyFigures& PolicyFigures::operator+=(const PolicyFigures& other) {
  count += other.count;
  kl += other.kl, entropy += other.entropy, ratio += other.ratio;
  clipped_low += other.clipped_low, clipped_high += other.clipped_high;
  clipped_dual += other.clipped_dual;
  ratio_min = std::min(ratio_min, other.ratio_min);
  ratio_max = std::max(ratio_max, other.ratio_max);
  return *this;
}

void all_sum(Communicator& ranks, PolicyFigures& figures) {
  all_sum(ranks, {&figures.kl, &figures.entropy, &figures.ratio});
  all_sum(ranks,
          {&figures.count, &figures.clipped_low, &figures.clipped_high, &figures.clipped_dual});
  for (const double least : gather(ranks, figures.ratio_min))
    figures.ratio_min = std::min(figures.ratio_min, least);
  for (const double most : gather(ranks, figures.ratio_max))
    figures.ratio_max = std::max(figures.ratio_max, most);
}

PolicyCounts count_learned(const PolicySequences& sequences, const PolicyLossOptions& options) {
  return Learned(sequences, options).counts();
}

PolicyLoss policy_loss(const at::Tensor& log_probs, const PolicySequences& sequences,
                       const PolicyCounts& counts, const PolicyLossOptions& options,
                       const at::Tensor& entropies) {
  const Learned learned(sequences, options);
  ERANK_CHECK(log_probs.dim() == 1 && log_probs.size(0) == std::ssize(learned.tokens) &&
              sequences.old_log_probs.sizes() == log_probs.sizes());
  ERANK_CHECK(options.dual_clip > 1 + options.clip_high);
  const auto type = log_probs.options();
  std::vector<double> of_token;
  for (const int64_t s : learned.of) of_token.push_back(sequences.advantages[s]);
  const at::Tensor advantage = at::tensor(of_token).to(type);
  const at::Tensor weight = at::tensor(learned.weights(counts, options)).to(type);

  const double low = 1 - options.clip_low, high = 1 + options.clip_high;
  const bool cispo = options.ratio == RatioKind::kCispo;
  const at::Tensor rho = bounded_exp(log_ratio(log_probs, sequences, learned, options.ratio));
  const at::Tensor clipped = at::clamp(rho, low, high);
  at::Tensor policy;
  if (cispo) {
    policy = -advantage * clipped.detach() * log_probs;
  } else {
    policy = at::maximum(-advantage * rho, -advantage * clipped);
    policy = at::where(advantage < 0, at::minimum(policy, -advantage * options.dual_clip), policy);
  }
  if (options.rollout_correction) {
    const at::Tensor correction =
        bounded_exp(sequences.old_log_probs - sequences.sampler_log_probs);
    policy = policy * at::clamp(correction, std::nullopt, options.correction_cap).detach();
  }
  at::Tensor kl;
  if (sequences.reference_log_probs.defined()) kl = kl_of(log_probs, sequences.reference_log_probs);
  ERANK_CHECK(kl.defined() || options.kl_coef == 0);

  PolicyLoss result;
  result.loss = ((options.kl_coef != 0 ? policy + options.kl_coef * kl : policy) * weight).sum();

  const at::NoGradGuard no_grad;
  PolicyFigures& figures = result.figures;
  figures.count = learned.counts().num_tokens;
  if (figures.count == 0) return result;
  const at::Tensor mask = weight > 0;
  const auto of_learned = [&](const at::Tensor& x) { return x.masked_select(mask); };
  const at::Tensor r = of_learned(rho), a = of_learned(advantage);
  const at::Tensor none = at::zeros({}, type);
  const auto sum = [&](const at::Tensor& x) { return x.defined() ? of_learned(x).sum() : none; };
  const auto share = [&](const at::Tensor& condition) { return condition.sum().to(type); };
  const at::Tensor under = r<low, over = r> high, dual = r > options.dual_clip;
  const at::Tensor numbers = at::stack({r.sum(), r.min(), r.max(), sum(kl), sum(entropies).to(type),
                                        share(cispo ? under : under.logical_and(a < 0)),
                                        share(cispo ? over : over.logical_and(a > 0)),
                                        cispo ? none : share(dual.logical_and(a < 0))})
                                 .to(at::kDouble)
                                 .cpu();
  const double* n = numbers.const_data_ptr<double>();
  figures.ratio = n[0], figures.ratio_min = n[1], figures.ratio_max = n[2];
  figures.kl = n[3], figures.entropy = n[4];
  figures.clipped_low = static_cast<int64_t>(n[5]),
  figures.clipped_high = static_cast<int64_t>(n[6]);
  figures.clipped_dual = static_cast<int64_t>(n[7]);
  return result;
}

ExactLoss exact_policy_loss(const at::Tensor& answers, std::span<const Outcomes> advantages,
                            const at::Tensor& reference, const ExactLossOptions& options) {
  const auto documents = std::ssize(advantages);
  ERANK_CHECK(answers.dim() == 2 && answers.size(0) == documents &&
              options.num_documents >= documents);
  const int64_t num_answers = answers.size(1);
  ERANK_CHECK(reference.defined() || options.kl_coef == 0);
  std::vector<double> values;
  for (const Outcomes& a : advantages) {
    ERANK_CHECK(std::ssize(a) == num_answers + 1);
    values.insert(values.end(), a.begin(), a.end());
  }
  const at::Tensor advantage =
      at::tensor(values).to(answers.options()).view({documents, num_answers + 1});
  // [D, K + 1] probabilities and their logarithms. The loss itself takes 1 - sum p as it is, so
  // that its gradient is never cut.
  const auto logs_of = [](const at::Tensor& log_p) {
    const at::Tensor rest = 1 - log_p.exp().sum(1, true);
    return at::cat({log_p, at::log(at::clamp(rest, kLeastRest))}, 1);
  };
  const at::Tensor p = answers.exp();
  const at::Tensor objective = (advantage.narrow(1, 0, num_answers) * p).sum(1) +
                               advantage.select(1, num_answers) * (1 - p.sum(1));
  const at::Tensor logs = logs_of(answers), all = logs.exp();
  at::Tensor kl;
  if (reference.defined()) kl = (all * (logs - logs_of(reference))).sum(1);
  at::Tensor total = -objective;
  if (options.kl_coef != 0) total = total + options.kl_coef * kl;

  ExactLoss result;
  result.loss = total.sum() / static_cast<double>(options.num_documents);
  const at::NoGradGuard no_grad;
  result.entropy = -(all * logs).sum();
  if (kl.defined()) result.kl = kl.sum();
  return result;
}

}  // namespace erank::train
