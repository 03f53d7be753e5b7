// A training run from its inputs to the trained model's folder: what every training verb does
// around its objective.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/progress.h"
#include "erank/data/records.h"
#include "erank/model/config.h"
#include "erank/model/parameters.h"
#include "erank/rank/checkpoint.h"
#include "erank/text/prompt_format.h"
#include "erank/text/tokenizer.h"
#include "erank/train/trainer.h"
#include "erank/train/validation.h"

namespace erank::train {

// Fields are the options of `erank train` that every verb shares (docs/training.md).
struct RunOptions {
  std::string model;  // "": the default model's base, without its adapter
  std::string out;    // the run's folder; may be "" when dry_run
  bool resume = false, overwrite = false;
  bool dry_run = false;  // nothing is written
  // How the model reads pairs; nullopt, "" and 0: as its erank.json says.
  std::optional<text::Layout> layout;
  std::optional<text::Scale> scale;
  std::string instruction;
  int max_query_tokens = 0, max_document_tokens = 0;
  std::optional<at::ScalarType> dtype;  // nullopt: the device's usual one
  bool cuda = false;
  int threads = 0;                           // 0: one a processor
  std::string validation, validation_qrels;  // "": none
  ValidationOptions validating;
  TrainOptions train;  // its base_name is set by Run
  bool full = false;   // train every parameter, train.lora is not looked at
  // The files that are learned from by what the identity calls them, e.g. {"data", path}.
  std::vector<std::pair<std::string, std::string>> data;
  // Every option in force, `name=value` a line: becomes train.toml. REQUIRES: names
  // max-pass-tokens, by which a folder is known as a run's.
  std::string config;
};

// What a run tells and asks its caller. `progress` may be null.
struct RunHooks {
  base::ProgressSink* progress = nullptr;
  std::function<bool()> stop = [] { return false; };  // end with a checkpoint
  std::function<void(const std::string& line)> warn = [](const std::string&) {};

  // Warns of what a reader left out of a file or changed in it, if anything.
  void tell(const std::string& path, const data::ReadNotes& notes) const {
    if (const std::string line = data::told(path, notes); !line.empty()) warn(line);
  }
};

// What training will take, of each rank where there are several.
struct Estimate {
  int64_t trained_parameters = 0;
  int64_t weights_bytes = 0, optimizer_bytes = 0, activation_bytes = 0;
  int num_ranks = 1;
  double gemm_peak = 0;  // FLOP/s, measured
  // Of all ranks together: forward and backward of the linear layers at half of the peak.
  double seconds_per_token = 0;
};

// Not thread-safe. Every call throws base::Error for what the caller or the machine did wrong.
class Run {
 public:
  // Looks at options and folder, then reads model configuration, tokenizer and prompt. Throws
  // Error{kInvalidInput} when a rate, norm or number of steps is negative, not finite or absurd,
  // when `out` holds something that is not a run's, or a run and neither `resume` nor `overwrite`
  // is set, or when it would write over an input. Sets libtorch's threads, and which GPU of the
  // machine is this rank's. A collective, as are the calls below that take an objective.
  Run(RunOptions options, RunHooks hooks, Communicator& ranks = alone());

  const RunOptions& options() const { return options_; }
  const RunHooks& hooks() const { return hooks_; }
  Communicator& ranks() const { return ranks_; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  const text::PromptFormat& format() const { return *format_; }
  // The instruction for pairs without their own.
  const std::string& instruction() const { return checkpoint_.defaults.instruction; }
  const model::ModelConfig& config() const { return config_; }

  // The candidates of options.validation with their judgements; nullptr: there are none. Throws
  // Error naming query and document of a prompt that the model cannot read whole.
  std::unique_ptr<RankingValidation> make_validation() const;

  // The model, loaded by the first call: its adapter is named kTrainedAdapter, or merged when
  // every parameter is trained. In a dry run tensors without storage.
  model::Parameters& parameters();

  // `pass_tokens`: of one forward and backward pass; `longest`: tokens of the longest example.
  Estimate estimate(Objective& objective, int64_t pass_tokens, int64_t longest);

  // Trains (Trainer::run) in the folder, from the newest checkpoint with options.resume, and when
  // it is finished writes the trained model. Throws Error{kInvalidInput} while another process
  // trains in it. What a checkpoint's identity holds: the options of
  // `config` but those that change no weight, what erank.json says of prompts, and digests of the
  // model's weights and tokenizer, of an adapter that is trained on and of the data.
  TrainResult train(Objective& objective);

 private:
  void check_folder() const;
  void check_own() const;
  void make_folder();
  base::Json identity() const;
  std::string base_name() const;
  std::unique_ptr<Trainer> make_trainer(Objective& objective);
  void write_model();

  RunOptions options_;
  RunHooks hooks_;
  Communicator& ranks_;
  rank::Checkpoint checkpoint_;
  model::ModelConfig config_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::unique_ptr<text::PromptFormat> format_;
  std::unique_ptr<model::Parameters> parameters_;
  std::optional<base::WriteLock> lock_;  // of rank 0, on the folder
};

}  // namespace erank::train
