// What the key/value cache takes with the usual options, before there is an engine.
#pragma once

#include <cstdint>

#include "erank/model/config.h"

namespace erank::engine {

struct CacheNeed {
  int64_t direct = 0;  // touched by passes of direct answers, and by prefixes kept after them
  int64_t most = 0;    // by long reasoning; EngineOptions::kv_cache_bytes bounds it
};

// `page_bytes`, `pass_tokens`: the network's. `kv_cache_bytes`: as EngineOptions has it.
CacheNeed cache_need(const model::ModelConfig& config, int64_t page_bytes, int64_t pass_tokens,
                     int64_t kv_cache_bytes = 0);

}  // namespace erank::engine
