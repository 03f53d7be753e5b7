// What a model takes in memory on the CPU, before it is loaded, and the precisions that it has.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "erank/base/memory.h"
#include "erank/model/network.h"

namespace erank::model {

class WeightSource;

struct MemoryNeed {
  int64_t weights = 0;      // Network::weight_bytes()
  int64_t page = 0;         // Network::page_bytes(): keys and values of kPageTokens tokens
  int64_t cache = 0;        // NetworkOptions::cache_bytes: all keys and values
  int64_t scratch = 0;      // what passes of pass_tokens tokens take for themselves
  int64_t pass_tokens = 0;  // Network::usual_pass_tokens()

  int64_t total() const { return weights + cache + scratch; }
};

MemoryNeed memory_need(const WeightSource& source, const NetworkOptions& options);

// Those that `source` can be loaded in: kFp32, kBf16, kInt8, and kGguf when it holds blocks.
std::vector<Precision> precisions_of(const WeightSource& source);

// Throws Error{kInvalidInput} for kGguf of weights that are not in blocks.
void check_precision(const WeightSource& source, Precision precision);
// Throws that, and Error{kExhausted}, which names the precisions that would fit, when all takes
// more than `available`.
void check_memory(const WeightSource& source, const NetworkOptions& options,
                  const std::optional<base::AvailableMemory>& available);
// Throws that error of weights for which the system gave no memory.
[[noreturn]] void refuse_memory(const WeightSource& source, const NetworkOptions& options,
                                const std::optional<base::AvailableMemory>& available);

}  // namespace erank::model
