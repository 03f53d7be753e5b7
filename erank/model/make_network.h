// The network of a device.
#pragma once

#include <memory>

#include "erank/base/progress.h"
#include "erank/model/network.h"
#include "erank/model/weight_source.h"

namespace erank::model {

// Throws Error{kInvalidInput} for a device or precision that is not there and, on the CPU, before
// it loads, Error{kExhausted} for what does not fit in memory (memory_need.h).
std::unique_ptr<Network> make_network(const WeightSource& source, const NetworkOptions& options,
                                      base::ProgressSink* progress = nullptr);

// Throws Error{kInvalidInput} for a GPU that is not there, as make_network does.
void check_gpu(int number);

// What serves every model well: bf16 on a GPU and on CPUs with bf16 instructions, else fp32.
Precision usual_precision(bool cuda);
// Of the matrix products on this CPU or a GPU: what kGguf computes in, else `precision` itself.
Precision product_precision(Precision precision, bool cuda = false);
// Whether int8 is faster than bf16 on this CPU: it has AVX-512 BF16 and VNNI, without which int8 is
// slow, and no AMX, with which bf16 is faster (docs/performance.md).
bool int8_is_fast();

}  // namespace erank::model
