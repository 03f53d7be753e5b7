// The flags that every verb with a model shares.
#pragma once

#include <CLI/CLI.hpp>

#include "erank/rank/reranker.h"

namespace erank::cli {

struct ModelFlags {
  rank::RerankerOptions options;
  std::string precision = "auto", device = "cpu";

  void add_to(CLI::App& verb);
  rank::RerankerOptions resolved() const;
};

}  // namespace erank::cli
