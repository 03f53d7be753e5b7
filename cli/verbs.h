// The program's verbs: one function and one file per verb. This folder alone prints and exits.
#pragma once

#include <CLI/CLI.hpp>
#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "erank/base/progress.h"

namespace erank::cli {

// What every verb gets. A verb throws base::Error for the caller's faults; main turns it into exit
// code 2.
struct Context {
  std::unique_ptr<base::ProgressSink>
      progress;               // a line on stderr; silent when that is not a terminal
  std::function<void()> run;  // the chosen verb's work: set by its callback, called by main
  // Of a verb that works until a signal comes: main exits with 0 then.
  bool ends_by_signal = false;
};

// True once SIGINT or SIGTERM has come: long work ends at the next safe point, main exits with 130,
// or with 0 where that is how the verb's work ends.
bool interrupted();

// A warning line on stderr ("erank: warning: ..."), never in the middle of the progress line.
void warn(const std::string& text);

// Registers a subcommand on `app`; its callback sets context.run.
void add_rerank(CLI::App& app, Context& context);
void add_merge_outputs(CLI::App& app, Context& context);
void add_index(CLI::App& app, Context& context);
void add_retrieve(CLI::App& app, Context& context);
void add_fuse(CLI::App& app, Context& context);
void add_search(CLI::App& app, Context& context);
void add_eval(CLI::App& app, Context& context);
void add_report(CLI::App& app, Context& context);
void add_calibrate(CLI::App& app, Context& context);
void add_data(CLI::App& app, Context& context);
void add_tokenize(CLI::App& app, Context& context);
void add_prompt(CLI::App& app, Context& context);
void add_model(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_demo(CLI::App& app, Context& context);
void add_benchmark(CLI::App& app, Context& context);
void add_synth(CLI::App& app, Context& context);
void add_serve(CLI::App& app, Context& context);
void add_train(CLI::App& app, Context& context);
void add_train_plot(CLI::App& train, Context& context);

}  // namespace erank::cli
