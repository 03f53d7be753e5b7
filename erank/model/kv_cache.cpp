#include "erank/model/kv_cache.h"

#include <ATen/ops/empty.h>

#include <new>

#include "erank/base/error.h"

namespace erank::model {

int64_t KvCache::page_bytes(const ModelConfig& config, at::ScalarType dtype) {
  return config.num_hidden_layers * 2 * config.kv_size() * kPageTokens *
         static_cast<int64_t>(c10::elementSize(dtype));
}

KvCache::KvCache(const ModelConfig& config, int64_t num_pages, at::ScalarType dtype,
                 at::Device device)
    : num_pages_(num_pages) {
  const auto options = at::TensorOptions().dtype(dtype).device(device);
  const int64_t heads = config.num_key_value_heads, d = config.head_dim;
  try {
    for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      keys_.push_back(at::empty({num_pages, heads, d, kPageTokens}, options));
      values_.push_back(at::empty({num_pages, heads, kPageTokens, d}, options));
    }
  } catch (const c10::Error&) {
    base::fail(base::ErrorKind::kExhausted, "kv_cache", "cannot allocate ",
               num_pages * page_bytes(config, dtype), " bytes; ask for less with --kv-cache-bytes");
  }
}

}  // namespace erank::model
