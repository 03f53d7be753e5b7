// The network on CPUs: packed weights, one team of threads a pass, fused steps.
#pragma once

#include <memory>

#include "erank/model/network.h"

namespace erank::model::cpu {

// Any head size that is even. See Network for what its results depend on.
class CpuNetwork : public Network {
 public:
  // Loads the weights. `num_threads`: 0: one per processor. With kGguf logits are, bit for bit,
  // those of the same weights unpacked to product_precision(kGguf).
  CpuNetwork(const WeightSource& source, Precision precision, int num_threads,
             base::ProgressSink* progress = nullptr);
  ~CpuNetwork() override;

  void load(const WeightSource& source, base::ProgressSink* progress) override;
  int64_t page_bytes() const override;
  std::unique_ptr<KvCache> make_cache(int64_t num_pages) const override;
  void forward(const Batch& batch, KvCache& cache) override;
  void read_rows(int64_t first, std::span<const RowRequest> requests,
                 std::span<RowResult> results) override;
  int64_t weight_bytes() const override;
  int64_t scratch_bytes() const;  // what passes so far have taken for themselves

  // What scratch_bytes() is after passes of `tokens` tokens, of each of which few logits are asked.
  static int64_t scratch_needed(const ModelConfig& config, Precision precision, int num_threads,
                                int64_t tokens);
  static int64_t page_bytes_of(const ModelConfig& config, Precision precision);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::model::cpu
