// Checkpoints in and out: safetensors (one file or shards) and GGUF, with full accounting.
#pragma once

#include <memory>
#include <string>

#include "erank/base/progress.h"
#include "erank/model/decoder.h"

namespace erank::model {

// Fills every parameter of `decoder` from a Hugging Face folder or a .gguf file, converting to its
// dtype (rounded once, from fp32). Every tensor in the files is used once and every parameter is
// filled, else Error{kCorrupt} lists the leftovers. Two kinds of surplus tensors are accepted when
// they say what we compute anyway: a tied checkpoint's lm_head.weight that equals the embedding,
// and rotary_emb.inv_freq (old Llama exports). Rows of q and k that GGUF permutes for the llama
// architecture are put back. Peak memory stays under 1.3 times the size of the result: pages of the
// map are released as they are read.
void load_weights(Decoder& decoder, const std::string& path,
                  base::ProgressSink* progress = nullptr);

// Config and weights of `path` (folder or .gguf): what most callers want.
std::unique_ptr<Decoder> load_decoder(const std::string& path, const DecoderOptions& options,
                                      base::ProgressSink* progress = nullptr);

// The configuration alone, from a folder's config.json or a .gguf file's header. Throws as
// ModelConfig does.
ModelConfig load_config(const std::string& path);

constexpr int64_t kMaxShardBytes = int64_t{5} << 30;

// Writes `folder`/model.safetensors (shards of at most `max_shard_bytes` with an index) in the
// decoder's dtype, and config.json; makes the folder. REQUIRES: no LoRA on the decoder. Atomic file
// by file, the index last; a model of the other form that stood there is removed.
void save_weights(Decoder& decoder, const std::string& folder,
                  int64_t max_shard_bytes = kMaxShardBytes, base::ProgressSink* progress = nullptr);

// The same files for a model of random weights (variance 0.02 ^ 2, norms 1, biases 0) that need not
// fit into memory: tensors are made and written one after another. Equal seeds give equal files.
// `dtype`: kFloat or kBFloat16.
void write_random_weights(const ModelConfig& config, uint64_t seed, at::ScalarType dtype,
                          const std::string& folder, int64_t max_shard_bytes = kMaxShardBytes,
                          base::ProgressSink* progress = nullptr);

}  // namespace erank::model
