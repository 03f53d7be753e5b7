#include "cli/data_verbs.h"

namespace erank::cli {

void add_data(CLI::App& app, Context& context) {
  auto* data = app.add_subcommand("data", "Look at collections, and make training data of them");
  data->require_subcommand(1);
  add_data_check(*data, context);
  add_data_sample(*data, context);
  add_data_convert(*data, context);
}

}  // namespace erank::cli
