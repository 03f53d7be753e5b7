#include "erank/model/weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>

#include <atomic>
#include <bit>
#include <cstring>

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

void check_finite(const WeightSource& source, base::ProgressSink* progress) {
  const std::vector<TensorShape> parameters = parameter_shapes(source.config());
  int64_t done = 0;
  for (const TensorShape& parameter : parameters) {
    const int64_t columns = source.size_of(parameter.name).columns;
    std::atomic<bool> finite{true};
    source.read(parameter.name, at::kFloat, [&](int64_t, const void* values, int64_t count) {
      constexpr uint32_t kExponent = 0x7f800000;  // all of it set: infinity or NaN
      const auto* floats = static_cast<const float*>(values);
      bool all = true;
      for (int64_t i = 0; i < count * columns; ++i)
        all &= (std::bit_cast<uint32_t>(floats[i]) & kExponent) != kExponent;
      if (!all) finite = false;
    });
    if (!finite)
      base::fail(base::ErrorKind::kCorrupt, "model", "tensor '", parameter.name,
                 "' has values that are not finite; the model or its adapter is damaged");
    if (progress)
      progress->update(
          {"check weights", ++done, static_cast<int64_t>(parameters.size()), "tensors", ""});
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
