#include "erank/model/tensor_file.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include <cmath>
#include <cstring>

#include "erank/base/error.h"
#include "erank/model/checkpoint.h"

namespace erank::model {

void save_tensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                  at::ScalarType dtype) {
  std::vector<NamedShape> shapes;
  for (const NamedTensor& p : tensors) shapes.push_back({p.name, p.tensor.sizes().vec()});
  save_tensors(path, shapes, dtype, [&](size_t i) { return tensors[i].tensor; });
}

void save_tensors(const std::string& path, const std::vector<NamedShape>& shapes,
                  at::ScalarType dtype, const std::function<at::Tensor(size_t i)>& fetch) {
  const at::NoGradGuard no_grad;
  ERANK_CHECK(dtype == at::kFloat || dtype == at::kBFloat16);
  std::vector<data::TensorInfo> infos;
  for (const NamedShape& p : shapes)
    infos.push_back(
        {p.name, dtype == at::kFloat ? data::DType::kF32 : data::DType::kBF16, p.shape, 0, 0});
  data::SafetensorsWriter writer(path, infos, {{"format", "pt"}});
  for (size_t i = 0; i < shapes.size(); ++i) {
    const at::Tensor tensor = fetch(i).detach().to(at::kCPU, dtype).contiguous();
    writer.write({static_cast<const uint8_t*>(tensor.const_data_ptr()), tensor.nbytes()});
  }
  writer.commit();
}

bool is_finite(const at::Tensor& tensor) {
  return std::isfinite(at::sum(tensor.detach(), at::kDouble).item<double>());
}

void load_tensors(const std::string& path, const std::vector<NamedTensor>& tensors) {
  const at::NoGradGuard no_grad;
  const Checkpoint file = Checkpoint::open(path);
  for (const NamedTensor& p : tensors) {
    const Checkpoint::Entry* entry = file.find(p.name);
    if (!entry)
      base::fail(base::ErrorKind::kCorrupt, "load_tensors", path, ": no tensor '", p.name, "'");
    if (!p.tensor.defined()) continue;
    check_shape(*entry, p.tensor.sizes().vec(), "load_tensors");
    const at::Tensor read = at::empty(p.tensor.sizes(), at::dtype(at::kFloat));
    auto* out = read.mutable_data_ptr<float>();
    const int64_t columns = read.dim() > 1 ? read.size(1) : 1;
    for_each_rows(*entry, at::kFloat, [&](int64_t first, const void* values, int64_t count) {
      std::memcpy(out + first * columns, values, count * columns * sizeof(float));
    });
    p.tensor.detach().copy_(read);
  }
  if (file.entries().size() != tensors.size())
    base::fail(base::ErrorKind::kCorrupt, "load_tensors", path, ": ", file.entries().size(),
               " tensors, expected ", tensors.size());
}

}  // namespace erank::model
