// The keys and values of past tokens, in pages of 16 tokens. Storage only: who owns which page is
// the engine's business (engine/scheduler.h).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "erank/model/config.h"

namespace erank::model {

// Token s of page b is slot 16 b + s. Not copyable. Used by one thread at a time.
class KvCache {
 public:
  static constexpr int kPageTokens = 16;

  // Allocates `num_pages` pages for every layer. Throws Error{kExhausted} when memory is short.
  KvCache(const ModelConfig& config, int64_t num_pages, at::ScalarType dtype, at::Device device);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  // Bytes of one page over all layers.
  static int64_t page_bytes(const ModelConfig& config, at::ScalarType dtype);

  int64_t num_pages() const { return num_pages_; }
  // A page of keys is stored by feature, so that 16 tokens of one feature are one vector.
  const at::Tensor& keys(int64_t layer) const { return keys_[layer]; }      // [num_pages, K, D, 16]
  const at::Tensor& values(int64_t layer) const { return values_[layer]; }  // [num_pages, K, 16, D]

 private:
  int64_t num_pages_;
  std::vector<at::Tensor> keys_, values_;
};

}  // namespace erank::model
