#include "cli/train_options.h"

namespace erank::cli {

void add_train(CLI::App& app, Context& context) {
  auto* train = app.add_subcommand("train", "Train a model to rerank");
  train->require_subcommand(1);
  add_train_sft(*train, context);
  add_train_grpo(*train, context);
  add_train_plot(*train, context);
}

}  // namespace erank::cli
