// GRPO from samples (arXiv 2402.03300 with ERank's rewards, 2509.00520).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "erank/train/example.h"
#include "erank/train/grpo.h"

namespace erank::train {

struct RolloutObjectiveOptions {
  RolloutOptions rollouts;
  PolicyLossOptions loss;  // its kl_coef is that of GrpoOptions
};

// An iteration draws G rollouts of each pair of its queries on the weights as they are, by the
// engine at temperature 1, and then takes its steps on them. Of two modes each has half of the
// rollouts, which are ranked and rewarded among themselves, as serving ranks answers of one mode,
// and whose advantages are of their own group. Draws depend on the seed, the
// iteration, the query's and the document's id and the sample's number alone. The log-probabilities
// that the engine gives are the old ones; in each run's first mini batch on fresh rollouts they are
// compared with the trainer's own, and a run in which they differ halts.
class RolloutObjective : public GrpoObjective {
 public:
  // As GrpoObjective.
  RolloutObjective(std::vector<RankedQuery> queries, const GrpoOptions& options,
                   const RolloutObjectiveOptions& rollouts, ModelFormat format,
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
  Work work(int64_t step) const override;

 private:
  struct Batch;

  int64_t num_samples() const { return sampler_options_.rollouts.num_samples; }
  int64_t samples_in_mode() const { return num_samples() / std::ssize(modes()); }
  // An example of a prompt without its branches, and what each mode's branches begin with: what is
  // common to the modes before a rollout belongs to the prompt.
  Example open_example(const std::string& qid, const text::Ids& prompt) const;
  text::Ids opening(size_t mode) const;
  Batch make_batch(const std::vector<size_t>& queries) const;
  std::vector<float> forward_log_probs(TreeForward& forward, const Batch& batch) const;
  std::vector<float> reference_log_probs(const TrainedModel& model, const Batch& batch) const;
  Figures reward_rollouts();

  RolloutObjectiveOptions sampler_options_;
  RolloutSampler sampler_;
  size_t common_close_ = 0;  // tokens that all modes have after a prompt
  int64_t iteration_ = -1;   // of what follows, which is of queries_of(iteration_) in their order
  RolloutTokens rollouts_;   // [pairs, G]
  std::vector<double> advantages_;  // [pairs, G]
  bool nothing_formatted_ = false;  // of the rollouts in one mode
  bool compared_ = false;           // this run has compared log-probabilities
  std::string frozen_adapter_;
  std::unique_ptr<model::Parameters> frozen_;
};

}  // namespace erank::train
