// Supervised fine-tuning: cross entropy on a teacher's reasoning and scores (ERank, section 3.2).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "erank/train/packing.h"
#include "erank/train/rank_loss.h"
#include "erank/train/trainer.h"
#include "erank/train/validation.h"

namespace erank::train {

struct SftOptions {
  int64_t batch_size = 32;  // examples a step
  // Pairs of one query that are together in a step and share its prompt's beginning. More is
  // faster, 1 gives every step as many queries as pairs.
  int64_t group_size = 8;
  double epochs = 1;
  int64_t max_steps = 0;  // 0: as many as the epochs have
  PackingOptions packing;
  // Added to the step's loss: rank_weight times the mean over its groups of the loss that compares
  // a group's pairs in a pass (rank_loss.h). REQUIRES: examples with rank terms, and `answers`.
  RankLossOptions rank = {};
  double rank_weight = 1;
  text::Ids answers = {};  // ids of the scale's answers; on 0..10 of "0".."9"
  uint64_t seed = 1;       // of the order
};

class SftObjective : public Objective {
 public:
  // `validation` may be null. Throws Error{kInvalidInput} for epochs that are not a number over 0
  // and up to 10000, and for a negative max_steps.
  SftObjective(std::vector<Example> examples, const SftOptions& options,
               std::unique_ptr<RankingValidation> validation);

  int64_t num_steps() const override { return num_steps_; }
  int64_t num_examples() const { return static_cast<int64_t>(examples_.size()); }
  StepStats accumulate(const TrainedModel& model, int64_t step,
                       const std::function<void(const at::Tensor&)>& backward) override;
  std::optional<Figures> validate(const TrainedModel& model, const WorkControl& control) override;

  // The groups of a step, a pure function of the seed and the step: each epoch cuts every query's
  // shuffled pairs into groups and shuffles the groups; steps take them in that order.
  std::vector<Group> groups_of(int64_t step) const;
  // Tokens that go through the network in the given steps' passes, without padding.
  int64_t num_tokens(int64_t first_step, int64_t last_step) const;

 private:
  at::Tensor rank_loss_of(const at::Tensor& logits, const MicroBatch& pass) const;

  std::vector<Example> examples_;
  std::vector<std::vector<size_t>> queries_;  // examples of each query
  SftOptions options_;
  std::unique_ptr<RankingValidation> validation_;
  int64_t steps_per_epoch_ = 0, num_steps_ = 0;
  mutable int64_t cached_epoch_ = -1;
  mutable std::vector<Group> epoch_groups_;
  mutable std::vector<size_t> step_starts_;  // in epoch_groups_; one more than steps

  void prepare_epoch(int64_t epoch) const;
};

}  // namespace erank::train
