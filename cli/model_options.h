// The flags that every verb with a model shares.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "erank/rank/reranker.h"

namespace erank::cli {

// A flag that an earlier release had; it warns that what it asked for is always so.
void add_deterministic(CLI::App& verb);

struct ModelFlags {
  rank::RerankerOptions options;
  std::string precision = "auto", device = "cpu";
  std::string scale;  // "": the checkpoint's

  void add_to(CLI::App& verb);
  rank::RerankerOptions resolved() const;
  // The files and folders that make the model, its adapters and its prompt. Throws as
  // rank::find_checkpoint does.
  std::vector<std::string> files() const;
};

}  // namespace erank::cli
