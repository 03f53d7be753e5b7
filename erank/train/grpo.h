// Reinforcement learning whose reward comes from how a query's documents rank together (ERank,
// arXiv 2509.00520, section 3.3): what its two objectives share, and the one without sampling.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "erank/train/exact_rewards.h"
#include "erank/train/policy_loss.h"
#include "erank/train/ranked_queries.h"
#include "erank/train/rollouts.h"
#include "erank/train/serving.h"
#include "erank/train/trainer.h"
#include "erank/train/validation.h"

namespace erank::train {

struct GrpoOptions {
  int64_t iterations = 320;
  int64_t queries_per_iteration = 64;
  // Pairs of an optimiser step: as many whole queries as come nearest to it, at least one.
  int64_t mini_batch = 320;
  RewardOptions reward = {};
  bool divide_by_std = true;  // advantages (advantages.h)
  double kl_coef = 0.001;
  // Nats a learned token (exact: a document); a step over it halts the run. No token's KL counts
  // for more than 10 (policy_loss.h), so that only a smaller limit can be passed by samples.
  double max_kl = 10;
  // Nats a learned token (exact: a document). The run halts when every step of
  // kLowEntropyIterations in a row is under it; 0: never.
  double min_entropy = 0;
  int64_t max_pass_tokens = 4096;
  uint64_t seed = 1;  // of the order and of samples
};

inline constexpr int64_t kLowEntropyIterations = 5;

// Throws Error{kInvalidInput} for a number outside its range.
void check(const GrpoOptions& options);

// Iterations of several optimiser steps. An epoch is a shuffled order of the queries, cut into
// iterations of queries_per_iteration; what is left over waits for the next one. The reference is
// the model as it is before the first step: it is asked once, and every checkpoint holds what it
// said.
class GrpoObjective : public Objective {
 public:
  int64_t num_steps() const override { return options_.iterations * steps_per_iteration_; }
  std::optional<Figures> validate(const TrainedModel& model, const WorkControl& control) override;

  // What a step takes, of samples as if each were as long as it may be.
  struct Work {
    int64_t learning_tokens = 0;   // forward and backward, without padding
    int64_t sampling_tokens = 0;   // through the engine
    int64_t reference_tokens = 0;  // forward alone: the reference and the weights before the step
    int64_t learning_rows = 0, reference_rows = 0;  // whose logits are computed
    int64_t pass_rows = 0;                          // the most of a pass

    Work& operator+=(const Work& other);
  };
  virtual Work work(int64_t step) const = 0;
  // Tokens through the engine before the first step, to ask the reference.
  int64_t reference_tokens() const;
  int64_t steps_per_iteration() const { return steps_per_iteration_; }
  const std::vector<RankedQuery>& queries() const { return queries_; }
  // Numbers of queries, each once; pure functions of the seed and the argument.
  std::vector<size_t> queries_of(int64_t iteration) const;
  std::vector<size_t> mini_batch(int64_t step) const;
  // Those of `queries` that fall to this rank, in their order.
  std::vector<size_t> own_of(const std::vector<size_t>& queries, const Communicator& ranks) const;

 protected:
  // What is asked of the reference.
  struct Asked {
    std::vector<rank::Mode> modes;  // in which answers are learned, one or two
    int max_think_tokens = 0;       // the longest reasoning
    bool answers = false;           // whole distributions, not scores to compare with alone
  };
  // `validation` may be null. Throws Error{kInvalidInput} for an option outside its range.
  // REQUIRES: at least one query, and each has documents.
  GrpoObjective(std::vector<RankedQuery> queries, const GrpoOptions& options, Asked asked,
                ModelFormat format, std::unique_ptr<RankingValidation> validation);

  const std::vector<rank::Mode>& modes() const { return asked_.modes; }
  int max_think_tokens() const { return asked_.max_think_tokens; }
  // Asks the reference about every query that is drawn, unless that is done or the queries bring
  // what would be asked. REQUIRES: the weights are those before the first step, or it is done.
  Preparation prepare_reference(const TrainedModel& model, int64_t step,
                                const WorkControl& control);
  // Of the answers in modes()[mode].
  RewardTable reward_table(size_t query, size_t mode, int64_t num_rollouts) const;
  // Numbers of a query's pairs begin here: all documents of all queries are counted.
  size_t first_pair(size_t query) const { return first_pair_[query]; }
  text::Scale scale() const { return format_.format.options().scale; }
  // Of a direct answer: 2 on the scale whose 10 is "1" then "0", else 1.
  int64_t answer_tokens() const { return std::ssize(reader_.choices().back()); }
  // "ndcg_10" with one mode, else "ndcg_10_direct" and so on.
  std::string name_of(const std::string& figure, size_t mode) const;
  std::vector<model::NamedTensor> state_tensors() const;
  // Writes them and what else a checkpoint needs; false where no step needs it.
  bool save_tensors(const std::string& path, int64_t step,
                    const std::vector<model::NamedTensor>& more) const;
  // Why a step that measured so must not change the weights; "": it may. Counts steps of low
  // entropy.
  std::string reason_to_halt(double mean_kl, double entropy);
  // Why a run of which no answer is formatted must end.
  static std::string unformatted_reason();
  // Over the queries, by their documents' scores.
  double ndcg_10(const std::vector<size_t>& queries, std::vector<std::vector<double>> scores) const;

  std::vector<RankedQuery> queries_;
  GrpoOptions options_;
  ModelFormat format_;
  rank::ScoreReader reader_;
  std::unique_ptr<RankingValidation> validation_;
  std::shared_ptr<Serving> serving_;
  // [modes x pairs] scores to compare with, [modes x pairs, K] log-probabilities of the reference's
  // answers, the first mode's before the second's; 0 where never drawn.
  at::Tensor reference_scores_, reference_answers_;
  bool has_reference_ = false;

 private:
  bool given_scores() const { return !queries_.front().reference.empty(); }
  std::vector<size_t> drawn_queries() const;
  int64_t reference_row(size_t query, size_t mode) const;  // of its first document
  size_t ask_reference(std::span<const size_t> queries, size_t mode,
                       const std::function<void()>& on_pair, const std::function<bool()>& stop);
  Figures reference_figures(const std::vector<size_t>& drawn) const;

  Asked asked_;
  std::vector<size_t> first_pair_;
  data::Qrels qrels_;
  at::Tensor low_entropy_steps_;  // [1] the steps in a row that were under min_entropy
  int64_t steps_per_iteration_ = 1, iterations_per_epoch_ = 1;
};

// Direct answers with the expectation over all of them instead of samples (exact_rewards.h). Each
// step computes with the policy of its own weights, so that every ratio is 1.
class ExactObjective : public GrpoObjective {
 public:
  // As GrpoObjective.
  ExactObjective(std::vector<RankedQuery> queries, const GrpoOptions& options, ModelFormat format,
                 std::unique_ptr<RankingValidation> validation);

  Preparation prepare(const TrainedModel& model, int64_t step, const WorkControl& control) override;
  StepStats accumulate(const TrainedModel& model, int64_t step,
                       const std::function<void(const at::Tensor&)>& backward) override;
  bool save(const std::string& path, int64_t step) const override;
  void load(const std::string& path) override;

  Work work(int64_t step) const override;

 private:
  struct Batch;

  Batch make_batch(std::vector<size_t> queries) const;
};

}  // namespace erank::train
