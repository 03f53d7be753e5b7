// The one training loop: accumulation, clipping, schedule, logs, validation, checkpoints and exact
// resume. What is learned is the objective's.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "erank/base/json.h"
#include "erank/base/progress.h"
#include "erank/model/parameters.h"
#include "erank/train/optimizer.h"
#include "erank/train/schedule.h"
#include "erank/train/tree_forward.h"

namespace erank::train {

// What one optimiser step learned from.
struct StepStats {
  double loss = 0;
  int64_t num_examples = 0;
  int64_t num_learned = 0;  // tokens in the loss
  int64_t num_tokens = 0;   // that went through the network, without padding
};

// What a step computes with: the parameters, whose active adapter is the trained one, and their
// differentiable forward. References, valid during a call.
struct TrainedModel {
  model::Parameters& parameters;
  TreeForward& forward;
};

// What a trainer minimises. Step s must depend on s and the weights alone, not on steps before it:
// that is what makes resuming exact.
class Objective {
 public:
  virtual ~Objective() = default;
  virtual int64_t num_steps() const = 0;
  // Computes step `step` in one pass or more, calling `backward` with each pass's loss; the losses
  // add up to the step's.
  virtual StepStats accumulate(const TrainedModel& model, int64_t step,
                               const std::function<void(const at::Tensor&)>& backward) = 0;
  // How good the weights are, more is better; nullopt: there is nothing to measure on.
  virtual std::optional<double> validate(const TrainedModel& model,
                                         base::ProgressSink* progress) = 0;
};

// The name in Parameters of the adapter that a trainer trains.
inline constexpr const char* kTrainedAdapter = "trained";

struct TrainOptions {
  Schedule schedule;
  AdamWOptions adamw;
  // Which parameters: those of the adapter kTrainedAdapter, made in this form unless the parameters
  // come with one of that name; nullopt: every one of the model.
  std::optional<model::LoraConfig> lora = model::LoraConfig{};
  uint64_t seed = 1;              // of fresh adapters, dropout, and the order of the data
  int64_t checkpoint_steps = 50;  // a checkpoint after so many steps, and at the end
  int64_t validate_steps = 0;  // validation after so many steps and at the end; 0: only at the end
  int64_t keep_checkpoints = 2;  // the newest so many stay
  int64_t stop_after = 0;  // end this run after so many of its steps, as if interrupted; 0: never
  std::string base_name;   // for adapter_config.json
  // FLOP/s that the log's shares are of; 0: measured when run() begins.
  double gemm_peak = 0;
};

struct TrainResult {
  int64_t steps_done = 0;  // of all, with earlier runs
  bool finished = false;   // false: `stop` ended it, the newest checkpoint holds everything
  std::optional<double> last_metric, best_metric;
  int64_t best_step = 0;
};

// Files in `folder` (docs/formats.md, "Training folder"):
//   log.jsonl                  a line a step, a validation, a resume
//   checkpoints/step-N/        weights (fp32), optimiser state, trainer.json; appears whole or not
//                              at all
//   best/                      weights (fp32) of the best validation so far
// Not thread-safe; the parameters are the trainer's until run() returns.
class Trainer {
 public:
  // `identity`: what a run depends on. Activates the adapter that it trains (options.lora), or
  // none. REQUIRES: no adapter of that name without options.lora.
  Trainer(model::Parameters& parameters, Objective& objective, const TrainOptions& options,
          std::string folder, base::Json identity);

  // Goes on from the newest checkpoint in the folder, if there is one. Throws Error{kInvalidInput}
  // naming the key when its identity is another, Error{kCorrupt} when it is damaged.
  void resume();

  // Trains to the end, or until stop() is true between two steps: then a checkpoint is written.
  // At the end the parameters hold the best weights (the last ones without validation).
  TrainResult run(base::ProgressSink* progress, const std::function<bool()>& stop);

  int64_t num_trained_values() const { return optimizer_.num_values(); }
  int64_t state_bytes() const { return optimizer_.state_bytes(); }
  int64_t first_step() const { return step_; }
  // FLOPs of a forward and backward pass that a token costs in the linear layers.
  double flops_per_token() const { return flops_per_token_; }

 private:
  void save_checkpoint();
  void load_checkpoint(const std::string& path);
  void save_weights_to(const std::string& folder) const;
  void load_weights_from(const std::string& folder);
  void validate(base::ProgressSink* progress);
  void log(base::OrderedJson line);
  std::vector<model::NamedTensor> trained() const;

  model::Parameters& parameters_;
  Objective& objective_;
  TrainOptions options_;
  std::string folder_;
  base::Json identity_;
  TreeForward forward_;
  AdamW optimizer_;
  int64_t step_ = 0;  // steps done
  std::optional<double> last_metric_, best_metric_;
  int64_t best_step_ = 0, validated_step_ = -1;
  double flops_per_token_ = 0, gemm_peak_ = 0;
};

// Removes what an earlier run in a training folder left: its log, its checkpoints, best/. What is
// not a trainer's stays.
void remove_run(const std::string& folder);

// The newest checkpoint's number of steps in a training folder, nullopt when there is none.
std::optional<int64_t> newest_checkpoint(const std::string& folder);

}  // namespace erank::train
