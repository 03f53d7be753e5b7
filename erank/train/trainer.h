// The one training loop: accumulation, clipping, schedule, logs, validation, checkpoints and exact
// resume. What is learned is the objective's.
#pragma once

#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "erank/base/json.h"
#include "erank/base/progress.h"
#include "erank/model/parameters.h"
#include "erank/train/communicator.h"
#include "erank/train/event_file.h"
#include "erank/train/optimizer.h"
#include "erank/train/schedule.h"
#include "erank/train/tree_forward.h"

namespace erank::train {

// Measured values and their names, in the order in which they are shown.
using Figures = std::vector<std::pair<std::string, double>>;

// What one optimiser step learned from.
struct StepStats {
  double loss = 0;
  int64_t num_examples = 0;
  int64_t num_learned = 0;  // tokens in the loss
  int64_t num_tokens = 0;   // that went through the network, without padding
  int64_t num_rows = 0;     // of them that went through the head
  // What else the step's line of the log says; the first two are shown beside the progress.
  Figures figures;
  std::string halt;  // why the run must end before this step changes the weights; "": go on
};

// What came of preparing a step.
struct Preparation {
  bool complete = true;  // false: stop() ended it and nothing was kept
  // Of a line {"step", "prepared": true, ..., "seconds"}; none: no line. The first two are shown
  // beside the progress, until others are prepared.
  Figures figures = {};
  std::string halt = {};  // why the run must end; "": go on
};

// What a step computes with: the parameters, whose active adapter is the trained one, their
// differentiable forward, and the ranks that train them together. References, valid during a call.
struct TrainedModel {
  model::Parameters& parameters;
  TreeForward& forward;
  Communicator& ranks = alone();
};

// How long work tells where it is, and learns that it is to end. `progress` may be null.
struct WorkControl {
  base::ProgressSink* progress = nullptr;
  const std::function<bool()>& stop;
};

// What a trainer minimises. Step s must depend on s, the weights and what prepare() made for it
// alone; what is prepared must depend on s and the weights at that time alone. That is what makes
// resuming exact: a checkpoint holds the weights and what is prepared.
//
// Several ranks hold the same objective. prepare, accumulate and validate are collectives: each
// does its share, and what they return and what is prepared is that of all, equal on every rank.
class Objective {
 public:
  virtual ~Objective() = default;
  virtual int64_t num_steps() const = 0;
  // Called before every step: makes what step `step` and those after it learn from (samples of the
  // weights as they are now), unless it is there. May take long; without gradients and dropout.
  // When control.stop() is true it may return incomplete: the run ends with a checkpoint, and a
  // resumed one prepares the same step again.
  virtual Preparation prepare(const TrainedModel&, int64_t /*step*/, const WorkControl&) {
    return {};
  }
  // Computes step `step` in passes, calling `backward` with each one's loss; the losses of all
  // ranks add up to the step's.
  virtual StepStats accumulate(const TrainedModel& model, int64_t step,
                               const std::function<void(const at::Tensor&)>& backward) = 0;
  // How good the weights are, more is better: the first value chooses the best ones. Empty: there
  // is nothing to measure on. nullopt: control.stop() ended it; a resumed run measures anew.
  virtual std::optional<Figures> validate(const TrainedModel& model,
                                          const WorkControl& control) = 0;
  // For a checkpoint: writes what is prepared and steps from `step` on still need as the file
  // `path`; false: nothing is needed, no file.
  virtual bool save(const std::string& /*path*/, int64_t /*step*/) const { return false; }
  // Takes back what save() wrote. Throws Error when the file is damaged; nothing is prepared then.
  virtual void load(const std::string& /*path*/) {}
};

// The name in Parameters of the adapter that a trainer trains.
inline constexpr const char* kTrainedAdapter = "trained";

struct TrainOptions {
  Schedule schedule;
  AdamWOptions adamw;
  // Which parameters: those of the adapter kTrainedAdapter, made in this form unless the parameters
  // come with one of that name; nullopt: every one of the model.
  std::optional<model::LoraConfig> lora = model::LoraConfig{};
  bool head_fp32 = false;         // TreeForward::set_head_fp32
  uint64_t seed = 1;              // of fresh adapters, dropout, and the order of the data
  int64_t checkpoint_steps = 50;  // a checkpoint after so many steps, and at the end
  int64_t validate_steps = 0;   // validation after so many steps and at the end; 0: only at the end
  bool validate_start = false;  // and of the weights before the first step, which may be the best
  int64_t keep_checkpoints = 2;  // the newest so many stay
  int64_t stop_after = 0;  // end this run after so many of its steps, as if interrupted; 0: never
  std::string base_name;   // for adapter_config.json
  // FLOP/s that the log's shares are of; 0: measured after the first step of run(), for as long as
  // the length of the run is worth it.
  double gemm_peak = 0;
};

struct TrainResult {
  int64_t steps_done = 0;  // of all, with earlier runs
  bool finished = false;   // false: `stop` ended it, the newest checkpoint holds everything
  std::optional<double> last_metric, best_metric;  // first figures of validations
  int64_t best_step = 0;
};

// Files in `folder` (docs/formats.md, "Training folder"):
//   log.jsonl                  a line a step, a preparation, a validation, a resume, a halt
//   events.out.tfevents.*      the same numbers for TensorBoard (event_file.h)
//   checkpoints/step-N/        weights (fp32), optimiser state, what is prepared, trainer.json;
//                              appears whole or not at all
//   best/                      weights (fp32) of the best validation so far
// Rank 0 writes them, every rank reads them; whatever the number of ranks, a checkpoint is the same
// and any number goes on from it. Not thread-safe; the parameters are the trainer's until run()
// returns.
class Trainer {
 public:
  // `identity`: what a run depends on. Activates the adapter that it trains (options.lora), or
  // none. REQUIRES: no adapter of that name without options.lora.
  Trainer(model::Parameters& parameters, Objective& objective, const TrainOptions& options,
          std::string folder, base::Json identity, Communicator& ranks = alone());

  // The rest are collectives.
  // Goes on from the newest checkpoint in the folder that is whole, if there is one. Returns what
  // is damaged about newer ones, a line each; the log will say it too. Throws Error{kInvalidInput}
  // naming the key when its identity is another, Error{kCorrupt} when every one is damaged.
  std::vector<std::string> resume();

  // Trains to the end, or until stop() is true between two steps, in a preparation or a validation:
  // then a checkpoint is written. At the end the parameters hold the best weights (the last ones
  // without validation). Throws Error{kInvalidInput} when the objective halts the run, or when
  // loss, gradients or weights are not finite: the log says why, the error names the last good
  // checkpoint, and nothing more is saved.
  TrainResult run(base::ProgressSink* progress, const std::function<bool()>& stop);

  // Not collectives.
  int64_t num_trained_values() const { return optimizer_.num_values(); }
  int64_t state_bytes() const { return optimizer_.state_bytes(); }
  int64_t first_step() const { return step_; }
  // FLOPs of a forward and backward pass that a token costs in the linear layers.
  double flops_per_token() const { return flops_per_token_; }

 private:
  bool prepare(const WorkControl& control);
  void step(base::ProgressSink* progress);
  [[noreturn]] void halt(int64_t step, const std::string& reason);
  void check_weights();
  void save_checkpoint();
  void describe(const std::string& folder) const;  // writes trainer.json
  void load_checkpoint(const std::string& path);
  void save_weights_to(const std::string& folder) const;
  void load_weights_from(const std::string& folder);
  bool validation_due() const;
  bool validate(const WorkControl& control);
  void log(base::OrderedJson line);
  bool writes() const { return ranks_.rank() == 0; }
  TrainedModel model() { return {parameters_, forward_, ranks_}; }
  std::vector<model::NamedTensor> trained() const;

  model::Parameters& parameters_;
  Objective& objective_;
  TrainOptions options_;
  std::string folder_;
  base::Json identity_;
  Communicator& ranks_;
  TreeForward forward_;
  AdamW optimizer_;
  int64_t step_ = 0;  // steps done
  std::optional<double> last_metric_, best_metric_;
  int64_t best_step_ = 0, validated_step_ = -1, saved_step_ = -1;
  int64_t saved_validation_ = -1;     // the validated step that the saved checkpoint knows
  bool saved_prepared_ = false;       // whether it holds what is prepared
  std::vector<std::string> skipped_;  // damaged checkpoints, for the log
  std::string prepared_;              // figures of the last preparation, for the progress
  std::optional<EventFile> events_;   // of this run()
  double flops_per_token_ = 0, flops_per_row_ = 0, gemm_peak_ = 0;
  int64_t tokens_ = 0;  // of this run's steps, their arithmetic and time
  double flops_ = 0;
  double seconds_ = 0;
};

// FLOP/s of all ranks together: the GEMM peak that rank 0 measures while the others wait, times
// their number; for about `max_seconds` where a whole measurement takes longer. A collective.
double measure_peak(at::ScalarType dtype, bool cuda, Communicator& ranks,
                    double max_seconds = std::numeric_limits<double>::infinity());

// Removes what an earlier run in a training folder left: its log and event files, its checkpoints,
// best/. What is not a trainer's stays.
void remove_run(const std::string& folder);

// The newest checkpoint's number of steps in a training folder, nullopt when there is none.
std::optional<int64_t> newest_checkpoint(const std::string& folder);

}  // namespace erank::train
