#include "erank/model/memory_need.h"

#include <limits>
#include <string>

#include "erank/base/error.h"
#include "erank/model/cpu/cpu_network.h"
#include "erank/model/cpu/cpu_plan.h"
#include "erank/model/weight_source.h"

namespace erank::model {
namespace {

using base::ErrorKind;
using base::memory_text;

constexpr int64_t kPassTokens = 2048;  // Network::usual_pass_tokens()

cpu::CpuPlan plan_of(const WeightSource& source, Precision precision) {
  // Which places are outliers changes no size.
  return {source, precision, std::vector<int32_t>(cpu::num_outliers(source.config(), precision))};
}

}  // namespace

MemoryNeed memory_need(const WeightSource& source, const NetworkOptions& options) {
  const Precision precision = options.precision;
  MemoryNeed need;
  need.weights = plan_of(source, precision).bytes();
  need.page = cpu::CpuNetwork::page_bytes_of(source.config(), precision);
  need.pass_tokens = kPassTokens;
  if (options.cache_bytes) need.cache = options.cache_bytes(need.page, need.pass_tokens);
  need.scratch = cpu::CpuNetwork::scratch_needed(source.config(), precision, options.threads,
                                                 need.pass_tokens);
  return need;
}

std::vector<Precision> precisions_of(const WeightSource& source) {
  std::vector<Precision> out = {Precision::kFp32, Precision::kBf16, Precision::kInt8};
  if (plan_of(source, Precision::kGguf).has_blocks()) out.push_back(Precision::kGguf);
  return out;
}

void check_precision(const WeightSource& source, Precision precision) {
  if (precision == Precision::kGguf && !plan_of(source, precision).has_blocks())
    base::fail(ErrorKind::kInvalidInput, "model", source.path(),
               ": its weights are not in the blocks of a GGUF file, or an adapter changes all of "
               "them; use --precision bf16 or int8");
}

void check_memory(const WeightSource& source, const NetworkOptions& options,
                  const std::optional<base::AvailableMemory>& available) {
  check_precision(source, options.precision);
  if (available && memory_need(source, options).total() > available->bytes)
    refuse_memory(source, options, available);
}

void refuse_memory(const WeightSource& source, const NetworkOptions& options,
                   const std::optional<base::AvailableMemory>& available) {
  const MemoryNeed need = memory_need(source, options);
  // What the system says is there it may still not give: a limit of the process, or no overcommit.
  const bool is_there = !available || need.total() <= available->bytes;
  const int64_t limit = is_there ? std::numeric_limits<int64_t>::max() : available->bytes;
  std::string fits;
  int64_t least = std::numeric_limits<int64_t>::max();
  NetworkOptions other = options;
  for (const Precision precision : precisions_of(source)) {
    other.precision = precision;
    const int64_t bytes = memory_need(source, other).total();
    least = std::min(least, bytes);
    if (bytes <= limit && bytes < need.total())
      fits += base::str(fits.empty() ? "" : ", or ", "--precision ", precision_name(precision),
                        ", which takes ", memory_text(bytes));
  }
  if (need.cache > 0 && need.total() - need.cache <= limit)
    fits += base::str(fits.empty() ? "" : ", or ", "a smaller --kv-cache-bytes");
  const std::string path = source.path().empty() ? "the model" : source.path();
  base::fail(
      ErrorKind::kExhausted, "model", path, ": it takes ", memory_text(need.total()), " in ",
      precision_name(options.precision), " (weights ", memory_text(need.weights),
      ", keys and values ", memory_text(need.cache), ", a pass ", memory_text(need.scratch), "), ",
      is_there ? "the system gives less (ulimit -v, vm.overcommit_memory)"
               : base::str("there is room for ", memory_text(limit), " (", available->what, ")"),
      "; ",
      !fits.empty() ? base::str("use ", fits)
                    : base::str("the least, ", memory_text(least),
                                ", does not fit either: free memory, add swap, or take a smaller "
                                "model or a GGUF file with fewer bits"));
}

}  // namespace erank::model
