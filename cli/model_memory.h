// What `erank model info` says of memory.
#pragma once

#include <string>
#include <vector>

#include "erank/base/json.h"
#include "erank/model/weight_source.h"

namespace erank::cli {

// Of each precision on the CPU and of the machine; docs/formats.md has the keys.
base::OrderedJson describe_memory(const model::WeightSource& source);

struct MemoryLine {
  std::string label, text;
};
// The same for people.
std::vector<MemoryLine> memory_lines(const base::OrderedJson& memory);

}  // namespace erank::cli
