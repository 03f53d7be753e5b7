#include "erank/model/cuda/cuda_network.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "erank/base/error.h"
#include "erank/model/cuda/draws.h"
#include "erank/model/weight_source.h"

namespace erank::model::cuda {
namespace {

// What calls of libtorch need: no autograd, and the device whose streams and memory they use.
struct Scope {
  explicit Scope(at::Device on) : device(on) {}
  c10::InferenceMode inference;
  c10::DeviceGuard device;
};

// [num_pages, 16, K, D] a layer.
class TensorCache : public KvCache {
 public:
  TensorCache(const ModelConfig& config, int64_t num_pages, at::TensorOptions options)
      : num_pages_(num_pages) {
    for (int64_t i = 0; i < config.num_hidden_layers; ++i)
      for (auto* list : {&keys, &values})
        list->push_back(at::empty(
            {num_pages, kPageTokens, config.num_key_value_heads, config.head_dim}, options));
  }
  int64_t num_pages() const override { return num_pages_; }
  std::vector<at::Tensor> keys, values;

 private:
  int64_t num_pages_;
};

// A pass's integers, which go to the device in one copy that nothing waits for.
class Upload {
 public:
  struct Place {
    int64_t first = 0, count = 0;
  };
  Place add(std::span<const int32_t> values) {
    const auto first = std::ssize(values_);
    values_.insert(values_.end(), values.begin(), values.end());
    return {first, std::ssize(values)};
  }
  void send(at::Device device) {
    const auto pinned = at::dtype(at::kInt).pinned_memory(device.is_cuda());
    const at::Tensor host = at::empty({std::ssize(values_)}, pinned);
    std::ranges::copy(values_, host.mutable_data_ptr<int32_t>());
    ints_ = host.to(device, at::kInt, /*non_blocking=*/true);
    longs_ = ints_.to(at::kLong);
  }
  at::Tensor ints(Place at) const { return ints_.narrow(0, at.first, at.count); }
  at::Tensor longs(Place at) const { return longs_.narrow(0, at.first, at.count); }

 private:
  std::vector<int32_t> values_;
  at::Tensor ints_, longs_;
};

// Sequences packed one after another: b's are [starts[b], starts[b + 1]).
struct Packed {
  std::vector<int32_t> starts = {0};  // [B + 1]
  at::Tensor on_device;               // the same
  int64_t longest = 0;

  void append(int32_t count) {
    starts.push_back(starts.back() + count);
    longest = std::max<int64_t>(longest, count);
  }
};

// Attention of q [T, N, D], the last tokens of their contexts, to k, v [C, K, D], causal and within
// `window` tokens (0: all) -> [T, N D]. The reference of what flash_attention computes.
at::Tensor sequence_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const Packed& queries, const Packed& contexts, int64_t window) {
  std::vector<at::Tensor> outputs;
  for (size_t b = 0; b + 1 < queries.starts.size(); ++b) {
    const int64_t count = queries.starts[b + 1] - queries.starts[b];
    const int64_t context = contexts.starts[b + 1] - contexts.starts[b];
    const auto heads_first = [](const at::Tensor& all, int64_t begin, int64_t length) {
      return all.narrow(0, begin, length).transpose(0, 1).unsqueeze(0);
    };
    const at::Tensor query = heads_first(q, queries.starts[b], count);
    const bool cut = window > 0 && context > window;  // whether a window hides anything
    at::Tensor mask;
    if (cut || (count != context && count > 1)) {
      const at::Tensor row =
          at::arange(context - count, context, query.options().dtype(at::kLong)).unsqueeze(1);
      const at::Tensor column = at::arange(context, query.options().dtype(at::kLong)).unsqueeze(0);
      mask = column <= row;
      if (cut) mask = mask & (column > row - window);
    }
    const bool causal = !cut && count == context && count > 1;
    const at::Tensor out = at::scaled_dot_product_attention(
        query, heads_first(k, contexts.starts[b], context),
        heads_first(v, contexts.starts[b], context),
        mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt, 0.0, causal, std::nullopt,
        q.size(1) != k.size(1));
    outputs.push_back(out.squeeze(0).transpose(0, 1).reshape({count, -1}));
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

// The same by one kernel for all sequences: FlashAttention-2, whose causal mask lets the last query
// see the whole context. On GPUs, in bf16.
at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const Packed& queries, const Packed& contexts, int64_t window) {
  const std::optional<int64_t> left = window > 0 ? std::optional(window - 1) : std::nullopt;
  const std::optional<int64_t> right = window > 0 ? std::optional<int64_t>(0) : std::nullopt;
  // The arguments that libtorch 2.11 and later ones have in common.
  const auto result = at::_flash_attention_forward(
      q, k, v, queries.on_device, contexts.on_device, queries.longest, contexts.longest,
      /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false, /*scale=*/std::nullopt,
      left, right);
  return std::get<0>(result).reshape({q.size(0), -1});
}

// Whether the GPU and this libtorch have the kernel for such heads.
bool has_flash_attention(const ModelConfig& config, at::TensorOptions options) {
  const Scope scope(options.device());
  const auto heads = [&](int64_t n) { return at::zeros({1, n, config.head_dim}, options); };
  const std::vector<int32_t> starts = {0, 1};
  const Packed one{starts, at::tensor(starts, at::kInt).to(options.device()), 1};
  try {
    const at::Tensor kv = heads(config.num_key_value_heads);
    flash_attention(heads(config.num_attention_heads), kv, kv, one, one, 0);
    return true;
  } catch (const c10::OutOfMemoryError&) {
    return true;  // loading the weights will say so
  } catch (const c10::Error&) {
    return false;
  }
}

// The contexts that are gathered at a time, in tokens: what they take grows with the sequences,
// also where these share a prefix. Few on the CPU, so that tests see groups.
int64_t most_context_tokens(at::Device device) { return device.is_cuda() ? 65536 : 256; }

// Says what there was too little memory for.
template <typename Work>
void report_memory(const std::string& what, Work work) {
  try {
    work();
  } catch (const c10::OutOfMemoryError&) {
    base::fail(base::ErrorKind::kExhausted, "model", "too little GPU memory for ", what,
               "; end what else uses the GPU, or lower --kv-cache-bytes if it fits then");
  }
}

}  // namespace

struct CudaNetwork::Plan {
  // Sequences whose contexts are gathered at a time.
  struct Group {
    Packed queries, contexts;    // their new tokens, and what these see
    std::vector<int32_t> slots;  // [C] of the contexts
    Upload::Place queries_at, contexts_at, slots_at;
    at::Tensor slots_on_device;
  };
  at::Tensor positions, slots;    // [T] slots: where a token's key and value go
  at::Tensor copy_from, copy_to;  // [copies] slots, or undefined
  std::vector<Group> groups;
};

int64_t count_gpus() { return static_cast<int64_t>(at::getNumGPUs()); }

void check_gpu(int64_t number, int64_t count) {
  if (count == 0)
    base::fail(
        base::ErrorKind::kInvalidInput, "model",
        "no usable GPU: this libtorch has no CUDA kernels or finds no device; use --device cpu");
  if (number < 0 || number >= count)
    base::fail(base::ErrorKind::kInvalidInput, "model", "--device cuda:", number,
               ": there is no such GPU, expected 0 to ", count - 1,
               "; nvidia-smi lists them, and CUDA_VISIBLE_DEVICES hides some");
}

CudaNetwork::CudaNetwork(const WeightSource& source, Precision precision, at::Device device,
                         base::ProgressSink* progress, const Kernels* kernels)
    : Network(source.config(), precision),
      dtype_(precision == Precision::kFp32 ? at::kFloat : at::kBFloat16),
      device_(device),
      operations_(kernels ? kernels : kernels_of(device), config_.rms_norm_eps),
      rotary_(config_) {
  flash_ = device.is_cuda() && dtype_ == at::kBFloat16 &&
           has_flash_attention(config_, at::dtype(dtype_).device(device));
  report_memory("the weights", [&] { load(source, progress); });
}

void CudaNetwork::load(const WeightSource& source, base::ProgressSink* progress) {
  const Scope scope(device_);
  const ModelConfig& c = config_;
  const int64_t total = c.num_hidden_layers + 1;
  const auto read = [&](const std::string& name) {
    return read_tensor(source, name, dtype_, device_);
  };
  const auto matrix = [&](const std::vector<std::string>& names) {
    return Matrix(source, names, precision_, device_);
  };
  const auto table = [&](const char* name) {
    const bool int8 = precision_ == Precision::kInt8;
    return Matrix(source, {name}, int8 ? Precision::kBf16 : precision_, device_);
  };
  embedding_ = table("model.embed_tokens.weight");
  head_ = c.tie_word_embeddings ? embedding_ : table("lm_head.weight");
  final_norm_ = read("model.norm.weight");
  layers_.assign(c.num_hidden_layers, {});
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string p = base::str("model.layers.", i, ".");
    const std::string a = p + "self_attn.", f = p + "mlp.";
    Layer& layer = layers_[i];
    layer.input_norm = read(p + "input_layernorm.weight");
    layer.post_norm = read(p + "post_attention_layernorm.weight");
    layer.qkv = matrix({a + "q_proj.weight", a + "k_proj.weight", a + "v_proj.weight"});
    if (c.qkv_bias)
      layer.qkv.set_bias(
          at::cat({read(a + "q_proj.bias"), read(a + "k_proj.bias"), read(a + "v_proj.bias")}));
    if (c.qk_norm) {
      layer.q_norm = read(a + "q_norm.weight");
      layer.k_norm = read(a + "k_norm.weight");
    }
    layer.o = matrix({a + "o_proj.weight"});
    if (c.o_bias) layer.o.set_bias(read(a + "o_proj.bias"));
    layer.gate_up = matrix({f + "gate_proj.weight", f + "up_proj.weight"});
    layer.down = matrix({f + "down_proj.weight"});
    if (progress) progress->update({"load weights", i + 1, total, "layers", ""});
  }
  if (progress) progress->finish();
}

int64_t CudaNetwork::page_bytes() const {
  return config_.num_hidden_layers * 2 * config_.kv_size() * kPageTokens *
         static_cast<int64_t>(c10::elementSize(dtype_));
}

std::unique_ptr<KvCache> CudaNetwork::make_cache(int64_t num_pages) const {
  const Scope scope(device_);
  try {
    return std::make_unique<TensorCache>(config_, num_pages,
                                         at::TensorOptions().dtype(dtype_).device(device_));
  } catch (const c10::Error&) {
    base::fail(base::ErrorKind::kExhausted, "kv_cache", "cannot allocate ",
               num_pages * page_bytes(), " bytes; ask for less with --kv-cache-bytes");
  }
}

int64_t cache_share(int64_t free_bytes, int64_t pass_bytes) {
  // The rest: what libtorch's allocator cannot use again, and workspaces of libraries.
  return std::max((free_bytes - pass_bytes) / 20 * 17, free_bytes / 4);
}

int64_t pass_bytes(const ModelConfig& c, int64_t tokens, Precision precision) {
  const int64_t element = precision == Precision::kFp32 ? 4 : 2;
  const int64_t of_token = 4 * c.hidden_size + 4 * c.intermediate_size + 2 * c.q_size() +
                           2 * (c.q_size() + 2 * c.kv_size());
  const int64_t contexts = most_context_tokens(at::kCUDA) * 2 * c.kv_size();
  constexpr int64_t kLogits = int64_t{3} << 27;  // slices of rows in fp32, and what is made of them
  return (tokens * of_token + contexts) * element + unpacked_bytes(precision, at::kCUDA) + kLogits;
}

int64_t CudaNetwork::usual_cache_bytes() const {
  if (!device_.is_cuda()) return kUsualCacheBytes;
  auto* allocator = at::getDeviceAllocator(device_.type());
  allocator->emptyCache();  // what loading and earlier caches have given back is free too
  const int64_t free = static_cast<int64_t>(allocator->getMemoryInfo(device_.index()).first);
  return cache_share(free, pass_bytes(config_, usual_pass_tokens(), precision_));
}

int64_t CudaNetwork::weight_bytes() const {
  int64_t bytes = embedding_.bytes() + (config_.tie_word_embeddings ? 0 : head_.bytes());
  for (const Layer& layer : layers_)
    for (const Matrix* m : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) bytes += m->bytes();
  return bytes;
}

void CudaNetwork::reach_position(int64_t position) {
  rotary_.reach(position);
  if (angles_.defined() && angles_.size(0) == rotary_.num_positions()) return;
  const auto table = [&](const std::vector<float>& values) {
    return at::tensor(values, at::kFloat).view({rotary_.num_positions(), -1});
  };
  angles_ = at::cat({table(rotary_.cos()), table(rotary_.sin())}, 1).to(device_);
}

at::Tensor CudaNetwork::attend(const at::Tensor& qkv, int64_t layer_idx, const Batch& batch,
                               const Plan& plan, KvCache& cache) const {
  const Layer& layer = layers_[layer_idx];
  auto& tensors = static_cast<TensorCache&>(cache);
  at::Tensor keys = tensors.keys[layer_idx].flatten(0, 1);
  at::Tensor values = tensors.values[layer_idx].flatten(0, 1);
  const at::Tensor q = operations_.rotate_and_store(
      qkv, {layer.q_norm, layer.k_norm, angles_, plan.positions, plan.slots, keys, values});
  if (plan.copy_from.defined())
    for (at::Tensor* all : {&keys, &values})
      all->index_copy_(0, plan.copy_to, all->index_select(0, plan.copy_from));
  std::vector<at::Tensor> outputs;
  int64_t first = 0;
  for (const Plan::Group& group : plan.groups) {
    const int64_t count = group.queries.starts.back();
    outputs.push_back((flash_ ? flash_attention : sequence_attention)(
        q.narrow(0, first, count), keys.index_select(0, group.slots_on_device),
        values.index_select(0, group.slots_on_device), group.queries, group.contexts,
        config_.window_of(layer_idx)));
    first += count;
  }
  return outputs.size() == 1 ? outputs[0] : at::cat(outputs, 0);
}

void CudaNetwork::forward(const Batch& batch, KvCache& cache) {
  report_memory(base::str("a pass of ", batch.tokens.size(), " tokens"),
                [&] { compute(batch, cache); });
}

void CudaNetwork::compute(const Batch& batch, KvCache& cache) {
  const Scope scope(device_);
  batch.check(config_.vocab_size, config_.context(), cache.num_pages());
  reach_position(*std::max_element(batch.positions.begin(), batch.positions.end()));
  Plan plan;
  std::vector<int32_t> slots, from, to;
  for (size_t b = 0; b + 1 < batch.starts.size(); ++b) {
    const int32_t begin = batch.starts[b], count = batch.starts[b + 1] - begin;
    if (count == 0) continue;
    const auto* own = batch.pages.data() + batch.page_starts[b];
    const int32_t context = batch.positions[begin] + count;
    if (plan.groups.empty() ||
        plan.groups.back().contexts.starts.back() + context > most_context_tokens(device_))
      plan.groups.emplace_back();
    Plan::Group& group = plan.groups.back();
    for (int32_t i = 0; i < context; ++i)
      group.slots.push_back(own[i / kPageTokens] * kPageTokens + i % kPageTokens);
    slots.insert(slots.end(), group.slots.end() - count, group.slots.end());
    group.queries.append(count);
    group.contexts.append(context);
  }
  for (const auto& copy : batch.copies) from.push_back(copy.from_slot), to.push_back(copy.to_slot);
  Upload upload;
  const auto tokens_at = upload.add(batch.tokens), positions_at = upload.add(batch.positions),
             rows_at = upload.add(batch.rows), slots_at = upload.add(slots),
             from_at = upload.add(from), to_at = upload.add(to);
  for (Plan::Group& group : plan.groups) {
    group.queries_at = upload.add(group.queries.starts);
    group.contexts_at = upload.add(group.contexts.starts);
    group.slots_at = upload.add(group.slots);
  }
  upload.send(device_);
  const at::Tensor rows = upload.longs(rows_at);
  plan.positions = upload.longs(positions_at);
  plan.slots = upload.longs(slots_at);
  for (Plan::Group& group : plan.groups) {
    group.queries.on_device = upload.ints(group.queries_at);
    group.contexts.on_device = upload.ints(group.contexts_at);
    group.slots_on_device = upload.longs(group.slots_at);
  }
  if (!from.empty()) plan.copy_from = upload.longs(from_at), plan.copy_to = upload.longs(to_at);

  at::Tensor x = embedding_.rows(upload.longs(tokens_at), operations_);
  at::Tensor normed = operations_.add_norm(x, {}, layers_[0].input_norm);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const bool last = i + 1 == layers_.size();
    at::Tensor attended =
        attend(layer.qkv.product(normed, operations_), static_cast<int64_t>(i), batch, plan, cache);
    if (last) {  // after the last attention only the asked rows matter
      attended = attended.index_select(0, rows);
      x = x.index_select(0, rows);
    }
    normed = operations_.add_norm(x, layer.o.product(attended, operations_), layer.post_norm);
    const at::Tensor gated = operations_.silu_product(layer.gate_up.product(normed, operations_));
    normed = operations_.add_norm(x, layer.down.product(gated, operations_),
                                  last ? final_norm_ : layers_[i + 1].input_norm);
  }
  hidden_ = normed;
}

void CudaNetwork::read_rows(int64_t first, std::span<const RowRequest> requests,
                            std::span<RowResult> results) {
  report_memory(base::str("the logits of ", requests.size(), " tokens"),
                [&] { read(first, requests, results); });
}

void CudaNetwork::read(int64_t first, std::span<const RowRequest> requests,
                       std::span<RowResult> results) {
  const Scope scope(device_);
  ERANK_CHECK(requests.size() == results.size() && hidden_.defined() && first >= 0 &&
              first + std::ssize(requests) <= hidden_.size(0));
  const at::Tensor logits =
      head_.product(hidden_.narrow(0, first, std::ssize(requests)), operations_).to(at::kFloat);
  // What is asked goes to the host in one copy: of each row the largest logit, its id, the sum, the
  // logits of its ids, and its draw; whole rows only where whole rows are asked.
  const int64_t v = config_.vocab_size;
  std::vector<int64_t> wanted, whole, drawn;
  std::vector<Drawing> drawings;
  bool sums = false;
  for (int64_t r = 0; r < std::ssize(requests); ++r) {
    for (int32_t i = 0; i < requests[r].num_ids; ++i) wanted.push_back(r * v + requests[r].ids[i]);
    if (requests[r].logits) whole.push_back(r);
    if (requests[r].draw.temperature > 0) drawn.push_back(r), drawings.push_back(requests[r].draw);
    sums |= requests[r].sum;
  }
  const at::Tensor argmax = logits.argmax(1, true);  // the first of equal ones; NaN over all
  const at::Tensor max = logits.gather(1, argmax);
  std::vector<at::Tensor> answers = {argmax.to(at::kDouble).flatten(),
                                     max.to(at::kDouble).flatten()};
  if (sums) answers.push_back((logits - max).exp_().sum(1, false, at::kDouble));
  if (!wanted.empty())
    answers.push_back(
        logits.view({-1}).index_select(0, at::tensor(wanted).to(device_)).to(at::kDouble));
  if (!drawn.empty()) {
    const at::Tensor rows = at::tensor(drawn).to(device_);
    answers.push_back(
        draw_tokens(logits.index_select(0, rows), max.index_select(0, rows), drawings).flatten());
  }
  const at::Tensor on_host = at::cat(answers).to(at::kCPU);
  const double* answer = on_host.const_data_ptr<double>();
  const double* of_ids = answer + (sums ? 3 : 2) * std::ssize(requests);
  const double* of_draws = of_ids + wanted.size();
  for (int64_t r = 0; r < std::ssize(requests); ++r) {
    const RowRequest& request = requests[r];
    RowResult& result = results[r];
    result = {};
    result.argmax = static_cast<int32_t>(answer[r]);
    result.max = static_cast<float>(answer[std::ssize(requests) + r]);
    result.finite = std::isfinite(result.max);
    if (request.sum && result.finite) result.sum = answer[2 * std::ssize(requests) + r];
    for (int32_t i = 0; i < request.num_ids; ++i) request.out[i] = static_cast<float>(*of_ids++);
    if (request.draw.temperature > 0) {
      result.drawn = static_cast<int32_t>(*of_draws++);
      result.drawn_logit = static_cast<float>(*of_draws++);
      result.drawn_log_p = *of_draws++;
    }
  }
  if (whole.empty()) return;
  const at::Tensor rows = logits.index_select(0, at::tensor(whole).to(device_)).to(at::kCPU);
  for (int64_t i = 0; i < std::ssize(whole); ++i)
    std::memcpy(requests[whole[i]].logits, rows.const_data_ptr<float>() + i * v, v * sizeof(float));
}

}  // namespace erank::model::cuda
