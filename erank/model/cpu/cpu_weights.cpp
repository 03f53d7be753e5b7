#include "erank/model/cpu/cpu_weights.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <numeric>
#include <optional>

#include "erank/base/error.h"
#include "erank/base/threads.h"
#include "erank/model/cpu/cpu_plan.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_kernels.h"
#include "erank/model/weight_source.h"

namespace erank::model::cpu {
namespace {

int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

std::vector<float> read_vector(const WeightSource& source, const std::string& name,
                               int64_t padded_size) {
  std::vector<float> out(padded_size);
  source.read_rows(name, at::kFloat, 0, source.size_of(name).rows,
                   [&](int64_t first, const void* values, int64_t count) {
                     std::memcpy(out.data() + first, values, count * sizeof(float));
                   });
  return out;
}

// Reads of blocks of rows, which threads then share.
class Reads {
 public:
  explicit Reads(const WeightSource& source) : source_(source) {}

  // `take` may be called by several threads at once. No dtype: the rows as they are stored.
  void add(const std::string& name, std::optional<at::ScalarType> dtype, const TakeRows& take) {
    const auto [rows, columns] = source_.size_of(name);
    const int64_t block = block_rows(columns);
    tensors_.push_back({name, dtype, take});
    for (int64_t first = 0; first < rows; first += block)
      blocks_.push_back({tensors_.size() - 1, first, std::min(first + block, rows)});
  }

  // `done` is told on this thread how many blocks are read.
  void run(int num_threads, const std::function<void(int64_t)>& done = {}) const {
    std::atomic<size_t> next{0}, num_done{0};
    const size_t members = std::min<size_t>(num_threads, blocks_.size());
    base::parallel_ranges(members, num_threads, [&](size_t member, size_t) {
      for (size_t i; (i = next++) < blocks_.size();) {
        const Block& block = blocks_[i];
        const Tensor& tensor = tensors_[block.tensor];
        try {
          if (tensor.dtype)
            source_.read_rows(tensor.name, *tensor.dtype, block.begin, block.end, tensor.take);
          else
            source_.read_stored(tensor.name, block.begin, block.end, tensor.take);
        } catch (...) {
          next = blocks_.size();
          throw;
        }
        const size_t n = ++num_done;
        if (member == 0 && done) done(static_cast<int64_t>(n));
      }
    });
    if (done) done(size());
  }
  int64_t size() const { return std::ssize(blocks_); }

 private:
  struct Tensor {
    std::string name;
    std::optional<at::ScalarType> dtype;
    TakeRows take;
  };
  struct Block {
    size_t tensor;
    int64_t begin, end;
  };
  const WeightSource& source_;
  std::vector<Tensor> tensors_;
  std::vector<Block> blocks_;
};

}  // namespace

// A few places of the residual stream hold values many times larger than the rest, the same in all
// layers. Training has made what reads them small there: of gate and up, the columns with the
// smallest norms are those of the largest activations. Every fourth layer is enough to see them.
std::vector<int32_t> CpuWeights::outliers(const WeightSource& source, int num_threads) const {
  const int64_t h = config_.hidden_size, layers = config_.num_hidden_layers;
  const int64_t count = num_outliers(config_, precision_);
  if (count == 0) return {};
  // Integers, so that the order of additions does not count.
  std::vector<std::atomic<int64_t>> squares(h);
  Reads reads(source);
  for (int64_t layer = 0; layer < layers; layer += 4)
    for (const char* name : {"gate", "up"})
      reads.add(base::str("model.layers.", layer, ".mlp.", name, "_proj.weight"), at::kFloat,
                [&](int64_t, const void* values, int64_t rows) {
                  std::vector<int64_t> sums(h);
                  weight_kernels().add_squares(static_cast<const float*>(values), rows, h,
                                               sums.data());
                  for (int64_t k = 0; k < h; ++k) squares[k] += sums[k];
                });
  reads.run(num_threads);
  std::vector<int32_t> places(h);
  std::iota(places.begin(), places.end(), 0);
  std::stable_sort(places.begin(), places.end(),
                   [&](int32_t a, int32_t b) { return squares[a] < squares[b]; });
  places.resize(count);
  return places;
}

CpuWeights::CpuWeights(const ModelConfig& config, Precision precision)
    : config_(config),
      precision_(precision),
      hidden_(padded(config.hidden_size)),
      head_dim_(padded(config.head_dim)),
      feed_forward_(padded(config.intermediate_size)) {
  if (config.head_dim % 2 != 0 || config.head_dim > 256)
    base::fail(base::ErrorKind::kInvalidInput, "model", "the head size is ", config.head_dim,
               ", expected an even one of at most 256");
}

void CpuWeights::load(const WeightSource& source, int num_threads, base::ProgressSink* progress) {
  const ModelConfig& c = config_;
  const int64_t d = c.head_dim, heads = c.num_attention_heads, kv = c.num_key_value_heads;
  layers_.clear();
  head_ = {};
  embedding_ = {};
  const CpuPlan plan(source, precision_, outliers(source, num_threads));
  Reads reads(source);
  const auto fill = [&](PackedMatrix& matrix, const PlannedMatrix& planned, int64_t inputs,
                        const int32_t* places = nullptr) {
    matrix = PackedMatrix(planned.plan);
    for (const PlannedMatrix::Part& part : planned.parts) {
      const auto format = matrix.is_stored() ? source.stored_format(part.name) : std::nullopt;
      std::optional<at::ScalarType> dtype;
      if (!format) dtype = matrix.precision() == Precision::kBf16 ? at::kBFloat16 : at::kFloat;
      const int64_t row_bytes = format ? StoredRows::row_bytes(*format, inputs)
                                       : inputs * static_cast<int64_t>(c10::elementSize(*dtype));
      reads.add(
          part.name, dtype,
          [=, &matrix, column = part.column](int64_t first, const void* values, int64_t count) {
            for (int64_t i = 0; i < count; ++i)
              matrix.set(column(first + i), static_cast<const char*>(values) + i * row_bytes,
                         inputs, places);
          });
    }
  };
  std::vector<int32_t> places(heads * d);
  for (int64_t i = 0; i < heads * d; ++i)
    places[i] = static_cast<int32_t>(i / d * head_dim_ + i % d);
  const int32_t* o_places = head_dim_ == d ? nullptr : places.data();

  layers_.resize(c.num_hidden_layers);
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string p = base::str("model.layers.", i, ".");
    CpuLayer& layer = layers_[i];
    const CpuPlan::Layer& planned = plan.layers[i];
    layer.input_norm = read_vector(source, p + "input_layernorm.weight", hidden_);
    layer.post_norm = read_vector(source, p + "post_attention_layernorm.weight", hidden_);
    fill(layer.qkv, planned.qkv, c.hidden_size);
    if (c.qkv_bias) {
      layer.qkv_bias.assign((heads + 2 * kv) * head_dim_, 0);
      int64_t part = 0;
      for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
        const int64_t count = part == 0 ? heads : kv;
        const auto bias = read_vector(source, p + "self_attn." + name + ".bias", count * d);
        const auto& column = planned.qkv.parts[part++].column;
        for (int64_t n = 0; n < count * d; ++n) layer.qkv_bias[column(n)] = bias[n];
      }
    }
    if (c.qk_norm) {
      layer.q_norm = read_vector(source, p + "self_attn.q_norm.weight", d);
      layer.k_norm = read_vector(source, p + "self_attn.k_norm.weight", d);
    }
    fill(layer.o, planned.o, heads * d, o_places);
    if (c.o_bias) layer.o_bias = read_vector(source, p + "self_attn.o_proj.bias", hidden_);
    fill(layer.gate_up, planned.gate_up, c.hidden_size);
    fill(layer.down, planned.down, c.intermediate_size);
  }
  final_norm_ = read_vector(source, "model.norm.weight", hidden_);
  fill(head_, plan.head, c.hidden_size);
  if (!plan.embedding.empty()) {
    embedding_ = StoredRows(c.hidden_size, plan.embedding);
    const data::DType format = plan.embedding.front();
    std::optional<at::ScalarType> dtype;
    if (format == data::DType::kF32) dtype = at::kFloat;
    if (format == data::DType::kBF16) dtype = at::kBFloat16;
    reads.add("model.embed_tokens.weight", dtype,
              [row_bytes = StoredRows::row_bytes(format, c.hidden_size), this](
                  int64_t first, const void* values, int64_t count) {
                for (int64_t i = 0; i < count; ++i)
                  embedding_.set(first + i, static_cast<const char*>(values) + i * row_bytes);
              });
  }
  reads.run(num_threads, [&](int64_t done) {
    if (progress) progress->update({"load weights", done, reads.size(), "blocks", ""});
  });
  if (progress) progress->finish();
}

void CpuWeights::embed(int32_t token, float* x) const {
  const int64_t h = config_.hidden_size;
  std::fill(x + h, x + hidden_, 0.0f);
  if (embedding_.empty()) return head_.get(token, x, h);
  embedding_.get(token, product_precision(precision_), x);
}

int64_t CpuWeights::bytes() const {
  int64_t bytes = head_.bytes() + embedding_.bytes();
  size_t floats = final_norm_.size();
  for (const CpuLayer& layer : layers_) {
    bytes += layer.qkv.bytes() + layer.o.bytes() + layer.gate_up.bytes() + layer.down.bytes();
    for (const auto* values : {&layer.input_norm, &layer.post_norm, &layer.qkv_bias, &layer.q_norm,
                               &layer.k_norm, &layer.o_bias})
      floats += values->size();
  }
  return bytes + static_cast<int64_t>(floats * sizeof(float));
}

}  // namespace erank::model::cpu
