#include "erank/model/weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>

#include <cstring>
#include <map>

#include "erank/base/error.h"

namespace erank::model {

void load_weights(Parameters& parameters, const WeightSource& source,
                  base::ProgressSink* progress) {
  const at::NoGradGuard no_grad;
  const auto all = parameters.named();
  int64_t done = 0;
  for (const auto& [name, tensor] : all) {
    at::Tensor target = tensor.is_cpu() ? tensor : at::empty_like(tensor, at::Device(at::kCPU));
    ERANK_CHECK(target.is_contiguous());
    auto* out = static_cast<char*>(target.data_ptr());
    const int64_t row_bytes = target.numel() / target.size(0) * target.element_size();
    source.read(name, target.scalar_type(), [&](int64_t first, const void* values, int64_t count) {
      std::memcpy(out + first * row_bytes, values, count * row_bytes);
    });
    if (!tensor.is_cpu()) tensor.copy_(target);
    if (progress)
      progress->update({"load weights", ++done, static_cast<int64_t>(all.size()), "tensors", ""});
  }
  if (progress) progress->finish();
}

std::unique_ptr<Parameters> load_parameters(const std::string& path, at::ScalarType dtype,
                                            at::Device device, base::ProgressSink* progress) {
  const CheckpointSource source = CheckpointSource::open(path);
  auto parameters = std::make_unique<Parameters>(source.config(), dtype, device);
  load_weights(*parameters, source, progress);
  return parameters;
}

}  // namespace erank::model
