// GRPO from samples (arXiv 2402.03300 with ERank's rewards, 2509.00520).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "erank/train/grpo.h"

namespace erank::train {

struct RolloutObjectiveOptions {
  RolloutOptions rollouts;
  PolicyLossOptions loss;  // its kl_coef is that of GrpoOptions
};

// An iteration draws G rollouts of each pair of its queries on the weights as they are, by the
// engine at temperature 1, and then takes its steps on them. Draws depend on the seed, the
// iteration, the query's and the document's id and the sample's number alone. The log-probabilities
// that the engine gives are the old ones; in each run's first mini batch on fresh rollouts they are
// compared with the trainer's own, and a run in which they differ halts.
class RolloutObjective : public GrpoObjective {
 public:
  // As GrpoObjective.
  RolloutObjective(std::vector<RankedQuery> queries, const GrpoOptions& options,
                   const RolloutObjectiveOptions& rollouts, GrpoFormat format,
                   std::unique_ptr<RankingValidation> validation);

  // Keeps what the KL is taken to: the parameters as they are now, before a trainer has them. With
  // an adapter that is a copy of it, with `full` one of every parameter, else the model without an
  // adapter. Does nothing without a KL. REQUIRES: called before training, also of a resumed run.
  void freeze_reference(model::Parameters& parameters, bool full);

  Preparation prepare(const TrainedModel& model, int64_t step, const WorkControl& control) override;
  StepStats accumulate(const TrainedModel& model, int64_t step,
                       const std::function<void(const at::Tensor&)>& backward) override;
  bool save(const std::string& path, int64_t step) const override;
  void load(const std::string& path) override;
  int64_t num_tokens(int64_t step) const override;

 protected:
  std::vector<text::ScoreDistribution> reference_answers(
      const std::vector<text::Ids>& prompts, const std::function<void()>& on_pair) override;

 private:
  struct Batch;

  int64_t num_samples() const { return sampler_options_.rollouts.num_samples; }
  Batch make_batch(const std::vector<size_t>& queries) const;
  std::vector<float> forward_log_probs(TreeForward& forward, const Batch& batch) const;
  std::vector<float> reference_log_probs(const TrainedModel& model, const Batch& batch) const;
  Figures reward_rollouts();

  RolloutObjectiveOptions sampler_options_;
  RolloutSampler sampler_;
  int64_t iteration_ = -1;  // of what follows, which is of queries_of(iteration_) in their order
  RolloutTokens rollouts_;  // [pairs, G]
  std::vector<double> advantages_;  // [pairs, G]
  bool compared_ = false;           // this run has compared log-probabilities
  std::string frozen_adapter_;
  std::unique_ptr<model::Parameters> frozen_;
};

}  // namespace erank::train
