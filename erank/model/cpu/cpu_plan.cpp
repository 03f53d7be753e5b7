#include "erank/model/cpu/cpu_plan.h"

#include <algorithm>

#include "erank/base/error.h"
#include "erank/model/cpu/stored_rows.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"

namespace erank::model::cpu {
namespace {

int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

bool is_block_format(data::DType format) { return data::dtype_block_values(format) > 1; }

data::DType plain_format(Precision products) {
  return products == Precision::kFp32 ? data::DType::kF32 : data::DType::kBF16;
}

// The formats of a matrix's strips when it is kept in blocks, else empty.
std::vector<data::DType> strips_of(const WeightSource& source, const PlannedMatrix& matrix) {
  bool blocks = false;
  std::vector<data::DType> strips(padded(matrix.plan.outputs) / StoredRows::kStrip,
                                  plain_format(matrix.plan.precision));
  for (const PlannedMatrix::Part& part : matrix.parts) {
    const auto format = source.stored_format(part.name);
    if (!format) continue;
    blocks = true;
    for (int64_t n = 0; n < source.size_of(part.name).rows; ++n)
      strips[part.column(n) / StoredRows::kStrip] = *format;
  }
  if (!blocks) return {};
  return strips;
}

}  // namespace

int64_t num_outliers(const ModelConfig& config, Precision precision) {
  if (precision != Precision::kInt8) return 0;
  const int64_t h = config.hidden_size;
  const int64_t count = std::clamp<int64_t>(h / 16 / 16 * 16, 16, kMaxOutliers);
  return h < 2 * count ? 0 : count;
}

CpuPlan::CpuPlan(const WeightSource& source, Precision precision, std::vector<int32_t> outliers)
    : products(product_precision(precision)) {
  const ModelConfig& c = source.config();
  ERANK_CHECK(std::ssize(outliers) == num_outliers(c, precision));
  hidden = padded(c.hidden_size);
  head_dim = padded(c.head_dim);
  feed_forward = padded(c.intermediate_size);
  embedding_width = c.hidden_size;
  const int64_t d = c.head_dim, heads = c.num_attention_heads, kv = c.num_key_value_heads;
  // Finer sections cost time, coarser ones accuracy (docs/performance.md, "What int8 costs").
  const int64_t parts = (hidden + 319) / 320;
  const Int8Layout normed{.section = (hidden / parts + 15) / 16 * 16,
                          .outliers = std::move(outliers)},
      attended{.section = head_dim}, gated{.section = 64};

  const auto in_head = [d, wide = head_dim](int64_t first_head) {
    return [=](int64_t n) { return (first_head + n / d) * wide + n % d; };
  };
  const auto interleaved = [](int64_t half) {
    return [=](int64_t n) { return n / 16 * kPanel + half * 16 + n % 16; };
  };
  const auto same = [](int64_t n) { return n; };
  const auto planned = [&](int64_t outputs, int64_t inputs, int64_t true_inputs,
                           const Int8Layout& int8, std::vector<PlannedMatrix::Part> of) {
    PlannedMatrix matrix{{outputs, inputs, products, int8, {}}, std::move(of)};
    if (precision == Precision::kGguf && inputs == true_inputs)
      matrix.plan.stored = strips_of(source, matrix);
    return matrix;
  };
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const auto name = [&](const char* part) { return base::str("model.layers.", i, ".", part); };
    layers.push_back({
        planned((heads + 2 * kv) * head_dim, hidden, c.hidden_size, normed,
                {{name("self_attn.q_proj.weight"), in_head(0)},
                 {name("self_attn.k_proj.weight"), in_head(heads)},
                 {name("self_attn.v_proj.weight"), in_head(heads + kv)}}),
        planned(hidden, heads * head_dim, heads * d, attended,
                {{name("self_attn.o_proj.weight"), same}}),
        planned(2 * feed_forward, hidden, c.hidden_size, normed,
                {{name("mlp.gate_proj.weight"), interleaved(0)},
                 {name("mlp.up_proj.weight"), interleaved(1)}}),
        planned(hidden, feed_forward, c.intermediate_size, gated,
                {{name("mlp.down_proj.weight"), same}}),
    });
  }
  const char* embedded = "model.embed_tokens.weight";
  head = planned(c.vocab_size, hidden, c.hidden_size, {},
                 {{c.tie_word_embeddings ? embedded : "lm_head.weight", same}});
  if (products == Precision::kInt8) head.plan.precision = Precision::kBf16;
  if (!c.tie_word_embeddings) {
    const auto format =
        precision == Precision::kGguf ? source.stored_format(embedded) : std::nullopt;
    embedding.assign((c.vocab_size + StoredRows::kStrip - 1) / StoredRows::kStrip,
                     format.value_or(plain_format(products)));
  }
  const int64_t of_layer = 2 * hidden + (c.qkv_bias ? (heads + 2 * kv) * head_dim : 0) +
                           (c.qk_norm ? 2 * d : 0) + (c.o_bias ? hidden : 0);
  vector_bytes = static_cast<int64_t>(sizeof(float)) * (c.num_hidden_layers * of_layer + hidden);
}

bool CpuPlan::has_blocks() const {
  const auto stored = [](const PlannedMatrix& matrix) { return !matrix.plan.stored.empty(); };
  return stored(head) || (!embedding.empty() && is_block_format(embedding.front())) ||
         std::any_of(layers.begin(), layers.end(), [&](const Layer& layer) {
           return stored(layer.qkv) || stored(layer.o) || stored(layer.gate_up) ||
                  stored(layer.down);
         });
}

int64_t CpuPlan::bytes() const {
  int64_t bytes =
      head.plan.bytes() + vector_bytes + StoredRows::bytes_of(embedding_width, embedding);
  for (const Layer& layer : layers)
    bytes += layer.qkv.plan.bytes() + layer.o.plan.bytes() + layer.gate_up.plan.bytes() +
             layer.down.plan.bytes();
  return bytes;
}

}  // namespace erank::model::cpu
