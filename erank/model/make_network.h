// The network of a device.
#pragma once

#include <memory>

#include "erank/base/progress.h"
#include "erank/model/network.h"
#include "erank/model/weight_source.h"

namespace erank::model {

// Throws Error{kInvalidInput} for a device or precision that is not there.
std::unique_ptr<Network> make_network(const WeightSource& source, const NetworkOptions& options,
                                      base::ProgressSink* progress = nullptr);

// What `auto` chooses: bf16 on a GPU and on CPUs with bf16 instructions, else fp32.
Precision usual_precision(bool cuda);

}  // namespace erank::model
