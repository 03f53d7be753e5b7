// The examples of supervised fine-tuning from a file of training pairs, checked.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "erank/train/example.h"
#include "erank/train/run.h"

namespace erank::train {

struct SftDataOptions {
  Modes modes = Modes::kBoth;
  bool soft = true;    // see ExampleOptions
  bool clean = false;  // see read_sft_data
  bool rank = false;   // see ExampleOptions
};

struct SftData {
  std::vector<Example> examples;  // in the file's order
  text::Ids answers;              // ids of the scale's answers; on 0..10 of "0".."9"
  int64_t longest = 0;            // tokens of the longest example, of its prompt and every branch
  int64_t num_cleaned = 0, num_dropped = 0;  // pairs
};

// Reads training pairs and writes their examples for the run's model. Each reasoning that is
// learned is read once as serving reads answers. Throws Error{kInvalidInput} with file and line for
// a pair that is longer than the model reads, naming its longest part, and for one whose reasoning
// does not come back as its answer: it holds one of PromptFormat::markers(), or
// ExampleWriter::reads_back is false. With `clean` the markers are taken out of the reasoning
// instead, and a pair that still does not come back is left out; hooks().warn says how many. Throws
// also as data::read_training_pairs does.
SftData read_sft_data(const std::string& path, const Run& run, const SftDataOptions& options);

}  // namespace erank::train
