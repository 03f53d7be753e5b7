#include "cli/model_memory.h"

#include "erank/base/memory.h"
#include "erank/engine/cache_need.h"
#include "erank/model/memory_need.h"

namespace erank::cli {

using base::OrderedJson;

OrderedJson describe_memory(const model::WeightSource& source) {
  OrderedJson out;
  const auto available = base::available_memory();
  out["available_bytes"] = available ? OrderedJson(available->bytes) : OrderedJson(nullptr);
  if (available) out["available_is"] = available->what;
  for (const model::Precision precision : model::precisions_of(source)) {
    const model::MemoryNeed need = model::memory_need(source, {.precision = precision});
    const engine::CacheNeed cache =
        engine::cache_need(source.config(), need.page, need.pass_tokens);
    OrderedJson& one = out["precisions"][model::precision_name(precision)];
    one["weight_bytes"] = need.weights;
    one["kv_cache_bytes"] = cache.direct;
    one["scratch_bytes"] = need.scratch;
    const int64_t total = need.weights + cache.direct + need.scratch;
    one["total_bytes"] = total;
    one["kv_cache_limit_bytes"] = cache.most;
    if (available) one["fits"] = total <= available->bytes;
  }
  return out;
}

std::vector<MemoryLine> memory_lines(const OrderedJson& memory) {
  std::vector<MemoryLine> lines;
  if (memory.contains("available_is"))
    lines.push_back(
        {"memory available", base::memory_text(memory["available_bytes"].get<int64_t>()) + " (" +
                                 memory["available_is"].get<std::string>() + ")"});
  for (const auto& [name, one] : memory["precisions"].items()) {
    const auto text = [&one = one](const char* key) {
      return base::memory_text(one[key].get<int64_t>());
    };
    lines.push_back({"memory in " + name,
                     text("total_bytes") + ": weights " + text("weight_bytes") +
                         ", keys and values " + text("kv_cache_bytes") + " (reasoning: up to " +
                         text("kv_cache_limit_bytes") + "), scratch " + text("scratch_bytes") +
                         (one.value("fits", true) ? "" : "; does not fit")});
  }
  return lines;
}

}  // namespace erank::cli
