// The examples of supervised fine-tuning from a file of training pairs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "erank/train/example.h"
#include "erank/train/run.h"

namespace erank::train {

struct SftDataOptions {
  Modes modes = Modes::kBoth;
  bool soft = true;  // see ExampleOptions
};

struct SftData {
  std::vector<Example> examples;
  int64_t num_pairs = 0;
  int64_t longest = 0;  // tokens of the longest example
};

SftData read_sft_data(const std::string& path, const Run& run, const SftDataOptions& options);

}  // namespace erank::train
