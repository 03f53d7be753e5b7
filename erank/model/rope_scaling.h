// How rotary position embedding is scaled for texts longer than the model was first trained on:
// config.json's `rope_parameters` (transformers 5) or `rope_scaling`, and GGUF's keys and tensors
// for the same.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "erank/base/json.h"
#include "erank/data/gguf.h"

namespace erank::model {

enum class RopeKind { kDefault, kLinear, kDynamic, kYarn, kLlama3, kLongrope };

const char* rope_kind_name(RopeKind kind);  // config.json's rope_type

// Names are config.json's own; a kind uses the fields that are named beside them.
struct RopeScaling {
  RopeKind kind = RopeKind::kDefault;
  double factor = 1;                                 // all but kDefault
  int64_t original_max_position_embeddings = 0;      // yarn, llama3, longrope
  std::optional<double> attention_factor;            // yarn, longrope; missing: derived
  double beta_fast = 32, beta_slow = 1;              // yarn
  double mscale = 0, mscale_all_dim = 0;             // yarn; 0: not given
  bool truncate = true;                              // yarn
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  std::vector<double> short_factor, long_factor;     // longrope: [D / 2]

  bool operator==(const RopeScaling&) const = default;
};

struct RopeConfig {
  std::optional<double> theta;
  RopeScaling scaling;
};

// Of a config.json. What transformers 5 does: `rope_scaling` replaces `rope_parameters`; rope_theta
// and rope_type in there win over rope_theta outside and over `type`;
// original_max_position_embeddings outside wins, and is `max_positions` where it is missing. Where
// two of these keys contradict each other, where a kind is unknown, a key that it needs is missing,
// or one that we do not know is there, throws Error{kInvalidInput} that shows the value and says
// which one transformers takes.
RopeConfig rope_from_json(const base::Json& json, int64_t max_positions, int64_t head_dim,
                          const std::string& where);

// Of a GGUF file: ARCH.rope.scaling.*, ARCH.rope.scale_linear and the tensors rope_freqs.weight
// (what llama.cpp's converter makes of llama3), rope_factors_short.weight and
// rope_factors_long.weight, as llama.cpp reads them. Adds the keys that it reads to `known`. Throws
// as rope_from_json does.
RopeScaling rope_from_gguf(const data::GgufFile& file, const std::string& arch,
                           int64_t max_positions, int64_t head_dim, std::set<std::string>& known);

// Whether a GGUF tensor of this name holds frequencies, which rope_from_gguf reads.
bool is_rope_tensor(const std::string& gguf_name);

// What rope_from_json reads as `scaling`; null for kDefault.
base::OrderedJson rope_to_json(const RopeScaling& scaling);

}  // namespace erank::model
