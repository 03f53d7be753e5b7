// Llama, Qwen2 and Qwen3 for inference on one device: weights in the device's own layout, its
// kernels, its cache. No autograd, no request, no text. model/cpu and model/cuda implement it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "erank/base/progress.h"
#include "erank/model/batch.h"
#include "erank/model/config.h"

namespace erank::model {

class WeightSource;

// Of the linear layers' matrix products. Norms, RoPE, softmax and the residual stream are fp32;
// with int8, keys, values and attention are bf16, and on a GPU the products too: there weights
// alone are int8. kGguf: bf16 or fp32, whichever is usual on the device, and weights in GGUF's
// block formats are kept in them.
enum class Precision { kFp32, kBf16, kInt8, kGguf };
const char* precision_name(Precision precision);     // "fp32", "bf16", "int8", "gguf"
Precision precision_named(const std::string& name);  // REQUIRES: one of these

// The keys and values of past tokens in pages of kPageTokens. Storage only: who owns which page is
// the engine's business.
class KvCache {
 public:
  virtual ~KvCache() = default;
  virtual int64_t num_pages() const = 0;
};

inline constexpr int64_t kUsualCacheBytes = int64_t{2} << 30;

struct NetworkOptions {
  Precision precision = Precision::kBf16;
  std::optional<int> gpu = {};  // its number; none: the CPU
  int threads = 0;              // of the CPU; 0: one per processor
  // On the CPU: what keys and values will take beside the weights, so that what does not fit is
  // refused before anything is loaded. Empty: nothing.
  std::function<int64_t(int64_t page_bytes, int64_t pass_tokens)> cache_bytes = {};
};

// Not thread-safe: one thread calls it.
//
// On the CPU every output is computed by one order of additions that depends on nothing but its own
// inputs: the same bits alone or in a batch, cache cold or warm, on any number of threads. This is
// guaranteed for one machine, precision and build.
class Network {
 public:
  virtual ~Network() = default;

  const ModelConfig& config() const { return config_; }
  Precision precision() const { return precision_; }

  // Replaces all weights. REQUIRES: a source of the same configuration. Throws as the source does.
  virtual void load(const WeightSource& source, base::ProgressSink* progress = nullptr) = 0;

  virtual int64_t page_bytes() const = 0;  // of one page over all layers
  // The most that a cache should take where nobody says: 2 GiB; on a GPU, which is for this network
  // alone, a share of the memory that is free now.
  virtual int64_t usual_cache_bytes() const { return kUsualCacheBytes; }
  // On the CPU memory is taken from the system when a page is first used, on a GPU all of it here.
  // Throws Error{kExhausted}.
  virtual std::unique_ptr<KvCache> make_cache(int64_t num_pages) const = 0;

  // Computes the pass and keeps the asked rows' last hidden states, after the final norm. REQUIRES:
  // batch.check passes, the cache is this network's own.
  virtual void forward(const Batch& batch, KvCache& cache) = 0;
  // Reads the logits of rows [first, first + requests.size()) of the last pass.
  virtual void read_rows(int64_t first, std::span<const RowRequest> requests,
                         std::span<RowResult> results) = 0;
  // Whether read_rows draws too, so that rows of logits need not leave the device.
  virtual bool draws() const { return false; }

  // Bytes of weights in the device's layout.
  virtual int64_t weight_bytes() const = 0;
  // New tokens of a pass beyond which throughput no longer grows.
  virtual int64_t usual_pass_tokens() const { return 2048; }

 protected:
  Network(const ModelConfig& config, Precision precision)
      : config_(config), precision_(precision) {}
  ModelConfig config_;
  Precision precision_;
};

}  // namespace erank::model
