// The network on CPUs: packed weights, one team of threads a pass, fused steps.
#pragma once

#include <memory>

#include "erank/model/network.h"

namespace erank::model::cpu {

// Any head size that is even. See Network for what its results depend on.
class CpuNetwork : public Network {
 public:
  // Loads the weights. `num_threads`: 0: one per processor.
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

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::model::cpu
