// Checkpoints in and out: safetensors (one file or shards) and GGUF, with full accounting.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "erank/base/progress.h"
#include "erank/model/decoder.h"

namespace erank::model {

// Fills every parameter of `decoder` from a Hugging Face folder or a .gguf file, converting to its
// dtype (norms in GGUF stay as they are stored until converted once). Every tensor in the files is
// used once and every parameter is filled, else Error{kCorrupt} lists the leftovers; a tied
// checkpoint that also stores lm_head.weight is accepted when it equals the embedding. Rows of q
// and k that GGUF permutes for the llama architecture are put back. Peak memory stays under 1.3
// times the size of the result: pages of the map are released as they are read.
void load_weights(Decoder& decoder, const std::string& path,
                  base::ProgressSink* progress = nullptr);

// Writes `folder`/model.safetensors (shards of at most `max_shard_bytes` with an index) in the
// decoder's dtype, and config.json. LoRA must have been merged or removed first. Atomic file by
// file, the index last.
void save_weights(Decoder& decoder, const std::string& folder,
                  int64_t max_shard_bytes = int64_t{5} << 30,
                  base::ProgressSink* progress = nullptr);

// Config and weights of `path` (folder or .gguf): what most callers want.
std::unique_ptr<Decoder> load_decoder(const std::string& path, const DecoderOptions& options,
                                      base::ProgressSink* progress = nullptr);

}  // namespace erank::model
