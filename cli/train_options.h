// The options that every verb of `erank train` shares, and what all of them print.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cli/verbs.h"
#include "erank/train/packing.h"
#include "erank/train/run.h"

namespace erank::cli {

// Adds options whose defaults --help shows.
struct OptionAdder {
  CLI::App& verb;

  CLI::Option* option(const char* name, auto& value, const char* text) const {
    return verb.add_option(name, value, text)->capture_default_str();
  }
  // One of `allowed`.
  CLI::Option* choice(const char* name, std::string& value, std::vector<std::string> allowed,
                      const char* text) const {
    return option(name, value, text)->check(CLI::IsMember(std::move(allowed)));
  }
};

// Values are the defaults that --help shows; a verb may set others before add_to().
struct TrainFlags {
  std::string config, model, out, validation, validation_qrels, layout, scale, instruction;
  std::string precision = "auto", device = "cpu", schedule = "cosine";
  std::string validation_modes = "direct";
  int max_think_tokens = train::ValidationOptions{}.max_think_tokens;
  int max_query_tokens = 0, max_document_tokens = 0, threads = 0;
  int64_t max_pass_tokens = train::PackingOptions{}.max_tokens;
  bool full = false, resume = false, overwrite = false, dry_run = false, json = false;
  model::LoraConfig lora;
  train::TrainOptions train;  // its seed is --seed

  // Adds the options.
  void add_to(CLI::App& verb);

  // After parsing: takes what the command line lacks from --config and the form of an adapter that
  // is trained on. Throws Error{kInvalidInput} for what cannot be.
  void complete(CLI::App& verb);
  // `data`: the files that are learned from by their options' names without dashes. All are
  // required. REQUIRES: complete().
  train::RunOptions run_options(const CLI::App& verb,
                                std::vector<std::pair<std::string, std::string>> data) const;
};

// An option of what a run reads or how it starts or stops: train.toml does not keep it.
inline void run_only(CLI::Option* option) { option->configurable(false); }

train::RunHooks run_hooks(Context& context, const train::Communicator& ranks);

std::string gigabytes(double bytes);  // "1.25 GB"
// Adds what an estimate says, and the time. `more_memory`, `shares`: what the text says after
// memory and time.
void add_estimate(base::OrderedJson& json, const train::Estimate& estimate, double seconds);
std::string estimate_text(const train::Estimate& estimate, double seconds,
                          const std::string& more_memory = "", const std::string& shares = "");

// Where the run ended: on stdout when it is finished, else on stderr. Of several ranks rank 0 says.
void report_run(const TrainFlags& flags, const train::Run& run, const train::TrainResult& result,
                int64_t num_steps);

void add_train_sft(CLI::App& train, Context& context);
void add_train_grpo(CLI::App& train, Context& context);

}  // namespace erank::cli
