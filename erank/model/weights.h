// Checkpoints in and out: safetensors (one file or shards) and GGUF, with full accounting.
#pragma once

#include <memory>
#include <string>

#include "erank/base/progress.h"
#include "erank/model/parameters.h"
#include "erank/model/weight_source.h"

namespace erank::model {

// Fills every tensor of `parameters`, converting to its dtype (rounded once, from fp32). Peak
// memory stays under 1.3 times the size of the result.
void load_weights(Parameters& parameters, const WeightSource& source,
                  base::ProgressSink* progress = nullptr);

// Config and weights of `path` (folder or .gguf): what training and merging want. Serving loads a
// Network from a CheckpointSource instead.
std::unique_ptr<Parameters> load_parameters(const std::string& path, at::ScalarType dtype,
                                            at::Device device = at::kCPU,
                                            base::ProgressSink* progress = nullptr);

// Reads every value. Throws Error{kCorrupt} naming a tensor with one that is not finite.
void check_finite(const WeightSource& source, base::ProgressSink* progress = nullptr);

constexpr int64_t kMaxShardBytes = int64_t{5} << 30;

// Writes `folder`/model.safetensors (shards of at most `max_shard_bytes` with an index) in the
// parameters' dtype, and config.json; makes the folder. REQUIRES: no active adapter. Atomic file by
// file, the index last; a model of the other form that was there is removed. Throws
// Error{kInvalidInput} naming a tensor that is not finite, before anything is written.
void save_weights(const Parameters& parameters, const std::string& folder,
                  int64_t max_shard_bytes = kMaxShardBytes, base::ProgressSink* progress = nullptr);

// The same files with every matrix of the layers as int8, in compressed-tensors' layout (a tensor
// "<name>_scale" [out, 1] fp32 beside each, "quantization_config" in config.json); embedding, head
// and norms as bf16. An adapter of the source is merged. Throws Error{kInvalidInput} naming a
// tensor that is not finite.
void save_int8_weights(const WeightSource& source, const std::string& folder,
                       int64_t max_shard_bytes = kMaxShardBytes,
                       base::ProgressSink* progress = nullptr);

// The same files for a model of random weights (variance 0.02 ^ 2, norms 1, biases 0) that need not
// fit into memory: tensors are made and written one after another. Equal seeds give equal files.
// `dtype`: kFloat or kBFloat16.
void write_random_weights(const ModelConfig& config, uint64_t seed, at::ScalarType dtype,
                          const std::string& folder, int64_t max_shard_bytes = kMaxShardBytes,
                          base::ProgressSink* progress = nullptr);

}  // namespace erank::model
