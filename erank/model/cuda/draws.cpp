#include "erank/model/cuda/draws.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/log.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cfloat>
#include <vector>

namespace erank::model::cuda {
namespace {

// Rows are drawn from in pieces of so many values: sorted, each takes about 40 bytes.
constexpr int64_t kMostValues = int64_t{1} << 22;
constexpr int64_t kNumbers = 4;  // of a drawing: scale, uniform, top_p, place of the last of top_k

// `how`: [D, kNumbers].
at::Tensor draw(const at::Tensor& logits, const at::Tensor& max, const at::Tensor& how,
                bool filter) {
  const auto number = [&](int64_t i) { return how.narrow(1, i, 1); };
  at::Tensor x = logits, ids;
  // Of equal logits the lower ids come first.
  if (filter) std::tie(x, ids) = at::sort(logits, /*stable=*/true, 1, /*descending=*/true);
  const at::Tensor scaled = (x - max) * number(0).to(at::kFloat);
  const at::Tensor sums = scaled.exp().cumsum(1, at::kDouble);
  const at::Tensor of_all = sums.narrow(1, sums.size(1) - 1, 1);
  at::Tensor last = number(3).to(at::kLong), total = of_all;
  if (filter) {
    const at::Tensor enough = sums.gather(1, last) * number(2);
    last = at::minimum(last, sums.lt(enough).sum(1, true));
    total = sums.gather(1, last);
  }
  const at::Tensor place = at::minimum(last, sums.le(total * number(1)).sum(1, true));
  const at::Tensor token = filter ? ids.gather(1, place) : place;
  return at::cat({token.to(at::kDouble), x.gather(1, place).to(at::kDouble),
                  scaled.gather(1, place) - of_all.log()},
                 1);
}

}  // namespace

at::Tensor draw_tokens(const at::Tensor& logits, const at::Tensor& max,
                       std::span<const Drawing> drawings) {
  const int64_t v = logits.size(1), most = std::max<int64_t>(1, kMostValues / v);
  const auto cuts = [&](const Drawing& drawing) { return drawing.top_k > 0 && drawing.top_k < v; };
  const auto filters = [&](const Drawing& drawing) { return drawing.top_p < 1 || cuts(drawing); };
  std::vector<double> numbers;
  for (const Drawing& drawing : drawings)
    for (const double number :
         {std::clamp(1 / drawing.temperature, double{FLT_MIN}, double{FLT_MAX}), drawing.uniform,
          drawing.top_p, static_cast<double>(cuts(drawing) ? drawing.top_k - 1 : v - 1)})
      numbers.push_back(number);
  const at::Tensor how = at::tensor(numbers, at::kDouble).view({-1, kNumbers}).to(logits.device());
  std::vector<at::Tensor> draws;
  for (int64_t first = 0; first < std::ssize(drawings);) {
    const bool filter = filters(drawings[first]);
    int64_t end = first + 1;  // of neighbours of one kind
    while (end < std::min(first + most, std::ssize(drawings)) && filters(drawings[end]) == filter)
      ++end;
    const auto part = [&](const at::Tensor& all) { return all.narrow(0, first, end - first); };
    draws.push_back(draw(part(logits), part(max), part(how), filter));
    first = end;
  }
  return at::cat(draws);
}

}  // namespace erank::model::cuda
