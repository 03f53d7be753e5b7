#include "erank/model/cpu/cpu_network.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/threads.h"
#include "erank/model/cpu/blocks.h"
#include "erank/model/cpu/cpu_weights.h"
#include "erank/model/cpu/kernels.h"
#include "erank/model/cpu/team.h"
#include "erank/model/make_network.h"
#include "erank/model/rotary.h"
#include "erank/model/weight_source.h"

namespace erank::model::cpu {
namespace {

// A page holds all layers: for each, keys then values of each key/value head, D' * kPageTokens
// elements each.
class CpuCache : public KvCache {
 public:
  CpuCache(int64_t num_pages, int64_t page_bytes)
      : num_pages_(num_pages), memory_(num_pages * page_bytes) {}
  int64_t num_pages() const override { return num_pages_; }
  char* data() const { return memory_.as<char>(); }

 private:
  int64_t num_pages_;
  Memory memory_;
};

struct AttentionTask {
  int64_t first_member, num_members;
};

// A member's own memory.
struct Scratch {
  LineVector<float> wide;     // [rows, width] of normed rows before they are quantised
  LineVector<char> rows;      // [rows, width] in the product's precision
  std::vector<float> scales;  // [rows, sections]
  LineVector<float> y;        // products
  LineVector<float> work;     // attention's
};

// Of an activation, a key or a value.
int64_t element_bytes(Precision precision) {
  return product_precision(precision) == Precision::kFp32 ? 4 : 2;
}

template <typename V>
void reserve(V& values, int64_t size) {
  if (std::ssize(values) < size) values.resize(size);
}

int64_t padded(int64_t n) { return (n + kPanel - 1) / kPanel * kPanel; }

// Of the largest panel of the layers, unpacked.
int64_t panel_bytes(const ModelConfig& config, Precision precision) {
  return std::max({padded(config.hidden_size), padded(config.intermediate_size),
                   config.num_attention_heads * padded(config.head_dim)}) *
         kPanel * element_bytes(precision);
}

}  // namespace

struct CpuNetwork::State {
  State(const ModelConfig& c, Precision p, int num_threads)
      : config(c),
        precision(p),
        weights(c, p),
        rotary(c),
        team(num_threads > 0 ? num_threads : base::num_processors()),
        claims(std::make_unique<Claims[]>(8 * (c.num_hidden_layers + 1))),
        scratch(team.size()),
        typed(product_precision(p) == Precision::kFp32 ? kernels().f32 : kernels().bf16),
        element(element_bytes(p)),
        most(row_counts(p)) {}

  const ModelConfig config;
  const Precision precision;
  CpuWeights weights;
  RotaryTable rotary;
  Team team;
  std::unique_ptr<Claims[]> claims;
  std::vector<Scratch> scratch;
  const TypedKernels& typed;
  const int64_t element;  // bytes of an activation
  const RowCounts& most;

  // Of the pass, kept from pass to pass for their memory.
  std::vector<float> x;          // [T, H'] the residual stream
  LineVector<char> q, attended;  // [T, N D']
  LineVector<char> gated;        // [T, F']
  std::vector<float> asked;      // [R, H'] the residual stream of the asked rows
  std::vector<int32_t> slots;    // [T]
  std::vector<AttentionMember> members, asked_members;
  std::vector<AttentionTask> tasks, asked_tasks;
  int64_t num_rows = 0;
  std::vector<ChunkStats> stats;  // [rows, chunks] of read_rows

  int64_t hidden() const { return weights.hidden(); }
  int64_t head_dim() const { return weights.head_dim(); }
  int64_t attention_width() const { return config.num_attention_heads * head_dim(); }
  int64_t page_elements() const {
    return config.num_hidden_layers * 2 * config.num_key_value_heads * head_dim() * kPageTokens;
  }
  // Where a layer's keys (part 0) or values (1) of a head begin in page 0.
  int64_t page_offset(int64_t layer, int part, int64_t head) const {
    return ((layer * 2 + part) * config.num_key_value_heads + head) * head_dim() * kPageTokens;
  }

  void plan(const Batch& batch);
  void add_tasks(const std::vector<AttentionMember>& list, std::vector<AttentionTask>& out) const;

  // --- one product's rows ---------------------------------------------------------------------
  using Rows = PackedMatrix::Rows;

  // Rows [begin, end) of the residual stream `from`, normed, in `matrix`'s precision.
  Rows normed(Scratch& s, const float* from, const std::vector<float>& weight,
              const PackedMatrix& matrix, int64_t begin, int64_t end) const {
    const int64_t n = end - begin, h = hidden();
    const float* rows = from + begin * h;
    const auto eps = static_cast<float>(config.rms_norm_eps);
    reserve(s.rows, n * std::max(4 * h, matrix.row_width()));
    if (matrix.precision() != Precision::kInt8) {
      typed.norm(rows, weight.data(), s.rows.data(), n, config.hidden_size, h, eps);
      return {s.rows.data(), h, nullptr, n};
    }
    reserve(s.wide, n * h);
    kernels().f32.norm(rows, weight.data(), s.wide.data(), n, config.hidden_size, h, eps);
    return quantized(s, s.wide.data(), h, matrix, n);
  }

  // Rows [begin, end) of activations [., width], in `matrix`'s precision.
  Rows taken(Scratch& s, const LineVector<char>& from, int64_t width, const PackedMatrix& matrix,
             int64_t begin, int64_t end) const {
    const int64_t n = end - begin;
    const char* rows = from.data() + begin * width * element;
    if (matrix.precision() != Precision::kInt8) return {rows, width, nullptr, n};
    reserve(s.rows, n * matrix.row_width());
    return quantized(s, reinterpret_cast<const uint16_t*>(rows), width, matrix, n);
  }

  template <typename T>
  static Rows quantized(Scratch& s, T* from, int64_t ldx, const PackedMatrix& matrix, int64_t n) {
    reserve(s.scales, n * matrix.num_sections());
    auto* bytes = reinterpret_cast<uint8_t*>(s.rows.data());
    matrix.quantize(from, ldx, n, bytes, s.scales.data());
    return {bytes, matrix.row_width(), s.scales.data(), n};
  }

  // --- the four products of a layer: prepare rows, then compute a unit ------------------------
  // A work item of qkv is a head: norm, RoPE and cache write need all of it.
  void compute_head(Scratch& s, const Batch& batch, char* pages, int64_t layer_idx,
                    const Rows& rows, int64_t begin, int64_t head) const {
    const CpuLayer& layer = weights.layers()[layer_idx];
    const int64_t d = head_dim(), panels = d / kPanel;
    reserve(s.y, rows.rows * d);
    for (int64_t p = 0; p < panels; ++p)
      layer.qkv.multiply(rows, head * panels + p, s.y.data() + p * kPanel, d);
    const int64_t heads = config.num_attention_heads, kv = config.num_key_value_heads;
    HeadArgs args{};
    args.y = s.y.data();
    args.bias = layer.qkv_bias.empty() ? nullptr : layer.qkv_bias.data() + head * d;
    args.eps = static_cast<float>(config.rms_norm_eps);
    args.cos = rotary.cos().data();
    args.sin = rotary.sin().data();
    args.positions = batch.positions.data() + begin;
    args.slots = slots.data() + begin;
    args.rows = rows.rows;
    args.head_dim = config.head_dim;
    args.padded_dim = d;
    args.page_stride = page_elements();
    if (head < heads) {
      args.norm = layer.q_norm.empty() ? nullptr : layer.q_norm.data();
      args.q = const_cast<char*>(q.data()) + (begin * attention_width() + head * d) * element;
      args.q_stride = attention_width();
      typed.store_q(args);
    } else if (head < heads + kv) {
      args.norm = layer.k_norm.empty() ? nullptr : layer.k_norm.data();
      args.cache = pages + page_offset(layer_idx, 0, head - heads) * element;
      typed.store_k(args);
    } else {
      args.cache = pages + page_offset(layer_idx, 1, head - heads - kv) * element;
      typed.store_v(args);
    }
  }

  // A panel of o or down is added to the residual stream.
  void compute_added(Scratch& s, const PackedMatrix& matrix, const std::vector<float>& bias,
                     const Rows& rows, float* stream, int64_t panel) const {
    reserve(s.y, rows.rows * kPanel);
    matrix.multiply(rows, panel, s.y.data(), kPanel);
    kernels().add(s.y.data(), bias.empty() ? nullptr : bias.data() + panel * kPanel,
                  stream + panel * kPanel, rows.rows, hidden());
  }

  void compute_gated(Scratch& s, const PackedMatrix& matrix, const Rows& rows, int64_t begin,
                     int64_t panel) {
    reserve(s.y, rows.rows * kPanel);
    matrix.multiply(rows, panel, s.y.data(), kPanel);
    typed.silu_mul(s.y.data(),
                   gated.data() + (begin * weights.feed_forward() + panel * 16) * element,
                   rows.rows, weights.feed_forward());
  }

  // --- phases ---------------------------------------------------------------------------------
  // All units of all blocks, each by whoever claims it, panels of a block in runs.
  template <typename Prepare, typename Compute>
  void share(Claims& claims_of_phase, const Blocks& blocks, int64_t units, const Prepare& prepare,
             const Compute& compute) const {
    if (blocks.count == 0) return;
    const int64_t runs = std::clamp<int64_t>(4 * team.size() / blocks.count, 1, units);
    Rows rows{};
    for (int64_t prepared = -1, i; (i = claims_of_phase.take(1)) < blocks.count * runs;) {
      const int64_t block = i / runs, run = i % runs;
      if (block != prepared) rows = prepare(blocks.begin(block), blocks.begin(block + 1));
      prepared = block;
      for (int64_t unit = units * run / runs; unit < units * (run + 1) / runs; ++unit)
        compute(rows, blocks.begin(block), unit);
    }
  }

  void attend(int member, Claims& claims_of_phase, char* pages, int64_t layer,
              const std::vector<AttentionMember>& list, const std::vector<AttentionTask>& all) {
    Scratch& s = scratch[member];
    const int64_t d = head_dim(), group = config.num_attention_heads / config.num_key_value_heads;
    reserve(s.work, attention_work(d));
    const int64_t count = std::ssize(all);
    for (int64_t i; (i = claims_of_phase.take(1)) < count * config.num_key_value_heads;) {
      const int64_t head = i / count;
      const AttentionTask& task = all[i % count];
      AttentionArgs args{};
      args.members = list.data() + task.first_member;
      args.num_members = task.num_members;
      args.q = q.data() + head * group * d * element;
      args.out = attended.data() + head * group * d * element;
      args.stride = attention_width();
      args.keys = pages + page_offset(layer, 0, head) * element;
      args.values = pages + page_offset(layer, 1, head) * element;
      args.page_stride = page_elements();
      args.group = group;
      args.padded_dim = d;
      args.window = config.window_of(layer);
      args.scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
      args.work = s.work.data();
      typed.attention(args);
    }
  }

  void copy_tokens(int member, const Batch& batch, char* pages, int64_t layer) const {
    const int64_t kv = config.num_key_value_heads;
    for (int64_t head = member; head < kv; head += team.size())
      for (const Batch::Copy& copy : batch.copies)
        typed.copy_token(pages + page_offset(layer, 0, head) * element,
                         pages + page_offset(layer, 1, head) * element, page_elements(), head_dim(),
                         copy.from_slot, copy.to_slot);
  }

  // What follows a layer's attention, for rows of `stream`: with own blocks without a wait inside
  // a block, else in three phases with a barrier after each.
  void finish_layer_block(int member, const CpuLayer& layer, float* stream, int64_t begin,
                          int64_t end) {
    Scratch& s = scratch[member];
    const int64_t panels = hidden() / kPanel, ff = weights.feed_forward();
    Rows rows = taken(s, attended, attention_width(), layer.o, begin, end);
    for (int64_t p = 0; p < panels; ++p)
      compute_added(s, layer.o, layer.o_bias, rows, stream + begin * hidden(), p);
    rows = normed(s, stream, layer.post_norm, layer.gate_up, begin, end);
    for (int64_t p = 0; p < layer.gate_up.num_panels(); ++p)
      compute_gated(s, layer.gate_up, rows, begin, p);
    rows = taken(s, gated, ff, layer.down, begin, end);
    for (int64_t p = 0; p < panels; ++p)
      compute_added(s, layer.down, {}, rows, stream + begin * hidden(), p);
  }

  void finish_layer_shared(int member, Claims* phase, const CpuLayer& layer, float* stream,
                           const Blocks& blocks) {
    Scratch& s = scratch[member];
    const int64_t panels = hidden() / kPanel, ff = weights.feed_forward();
    const auto added = [&](const PackedMatrix& matrix, const std::vector<float>& bias) {
      return [&](const Rows& rows, int64_t begin, int64_t p) {
        compute_added(s, matrix, bias, rows, stream + begin * hidden(), p);
      };
    };
    static const std::vector<float> kNoBias;
    share(
        phase[0], blocks, panels,
        [&](int64_t begin, int64_t end) {
          return taken(s, attended, attention_width(), layer.o, begin, end);
        },
        added(layer.o, layer.o_bias));
    team.barrier();
    share(
        phase[1], blocks, layer.gate_up.num_panels(),
        [&](int64_t begin, int64_t end) {
          return normed(s, stream, layer.post_norm, layer.gate_up, begin, end);
        },
        [&](const Rows& rows, int64_t begin, int64_t p) {
          compute_gated(s, layer.gate_up, rows, begin, p);
        });
    team.barrier();
    share(
        phase[2], blocks, panels,
        [&](int64_t begin, int64_t end) { return taken(s, gated, ff, layer.down, begin, end); },
        added(layer.down, kNoBias));
    team.barrier();
  }

  void pass(int member, const Batch& batch, char* pages);
  void head(int member, Claims& claims_of_phase, int64_t first,
            std::span<const RowRequest> requests);
};

void CpuNetwork::State::add_tasks(const std::vector<AttentionMember>& list,
                                  std::vector<AttentionTask>& out) const {
  out.clear();
  const int64_t group = config.num_attention_heads / config.num_key_value_heads;
  int64_t rows = 0;
  for (const AttentionMember& member : list) rows += member.tokens * group;
  // Enough tasks for all members to have some, and rows enough in one to share what is read.
  const int64_t wanted =
      std::clamp<int64_t>(rows * config.num_key_value_heads / (4 * team.size()), 1, kAttentionRows);
  int64_t filled = kAttentionRows;
  for (int64_t i = 0; i < std::ssize(list); ++i) {
    const int64_t own = list[i].tokens * group;
    if (filled + own > wanted || filled >= wanted) {
      out.push_back({i, 0});
      filled = 0;
    }
    ++out.back().num_members;
    filled += own;
  }
}

void CpuNetwork::State::plan(const Batch& batch) {
  const int64_t t = std::ssize(batch.tokens), r = std::ssize(batch.rows);
  const int64_t group = config.num_attention_heads / config.num_key_value_heads;
  rotary.reach(*std::max_element(batch.positions.begin(), batch.positions.end()));
  num_rows = r;
  reserve(x, t * hidden());
  reserve(q, t * attention_width() * element);
  reserve(attended, std::max(t, r) * attention_width() * element);
  reserve(gated, t * weights.feed_forward() * element);
  reserve(asked, r * hidden());
  slots.resize(t);
  members.clear();
  asked_members.clear();
  const auto tile = static_cast<int32_t>(std::max<int64_t>(1, kAttentionRows / group));
  size_t next_row = 0;
  for (size_t b = 0; b + 1 < batch.starts.size(); ++b) {
    const int32_t* own = batch.pages.data() + batch.page_starts[b];
    const int32_t begin = batch.starts[b], end = batch.starts[b + 1];
    for (int32_t i = begin; i < end; ++i)
      slots[i] =
          own[batch.positions[i] / kPageTokens] * kPageTokens + batch.positions[i] % kPageTokens;
    for (int32_t i = begin; i < end; i += tile)
      members.push_back({i, i, std::min(tile, end - i), batch.positions[i], own});
    // After the last layer's attention only the asked rows matter.
    for (; next_row < batch.rows.size() && batch.rows[next_row] < end; ++next_row) {
      const int32_t row = batch.rows[next_row];
      asked_members.push_back({row, static_cast<int32_t>(next_row), 1, batch.positions[row], own});
    }
  }
  add_tasks(members, tasks);
  add_tasks(asked_members, asked_tasks);
  for (int64_t i = 0; i < 8 * (config.num_hidden_layers + 1); ++i) claims[i].reset();
}

void CpuNetwork::State::pass(int member, const Batch& batch, char* pages) {
  Scratch& s = scratch[member];
  const int64_t t = std::ssize(batch.tokens), n = team.size();
  const int64_t heads = config.num_attention_heads + 2 * config.num_key_value_heads;
  const Blocks blocks(t, team.size(), most), asked_blocks(num_rows, team.size(), most);
  const auto& layers = weights.layers();
  for (int64_t i = t * member / n; i < t * (member + 1) / n; ++i)
    weights.embed(batch.tokens[i], x.data() + i * hidden());
  team.barrier();
  for (int64_t l = 0; l < std::ssize(layers); ++l) {
    const CpuLayer& layer = layers[l];
    const bool last = l + 1 == std::ssize(layers);
    Claims* phase = claims.get() + 8 * l;
    if (blocks.own) {
      for (int64_t block; (block = phase[0].take(1)) < blocks.count;) {
        const int64_t begin = blocks.begin(block), end = blocks.begin(block + 1);
        if (l > 0) finish_layer_block(member, layers[l - 1], x.data(), begin, end);
        const Rows rows = normed(s, x.data(), layer.input_norm, layer.qkv, begin, end);
        for (int64_t head = 0; head < heads; ++head)
          compute_head(s, batch, pages, l, rows, begin, head);
      }
    } else {
      share(
          phase[0], blocks, heads,
          [&](int64_t begin, int64_t end) {
            return normed(s, x.data(), layer.input_norm, layer.qkv, begin, end);
          },
          [&](const Rows& rows, int64_t begin, int64_t head) {
            compute_head(s, batch, pages, l, rows, begin, head);
          });
    }
    team.barrier();
    if (!batch.copies.empty()) {
      copy_tokens(member, batch, pages, l);
      team.barrier();
    }
    if (!last) {
      attend(member, phase[1], pages, l, members, tasks);
      team.barrier();
      if (!blocks.own) finish_layer_shared(member, phase + 2, layer, x.data(), blocks);
      continue;
    }
    for (int64_t i = num_rows * member / n; i < num_rows * (member + 1) / n; ++i)
      std::memcpy(asked.data() + i * hidden(), x.data() + batch.rows[i] * hidden(),
                  hidden() * sizeof(float));
    attend(member, phase[1], pages, l, asked_members, asked_tasks);
    team.barrier();
    if (!asked_blocks.own) {
      finish_layer_shared(member, phase + 2, layer, asked.data(), asked_blocks);
      continue;
    }
    for (int64_t block; (block = phase[2].take(1)) < asked_blocks.count;)
      finish_layer_block(member, layer, asked.data(), asked_blocks.begin(block),
                         asked_blocks.begin(block + 1));
  }
}

// Logits are computed chunk by chunk and reduced at once; whole rows are kept only where asked.
void CpuNetwork::State::head(int member, Claims& claims_of_phase, int64_t first,
                             std::span<const RowRequest> requests) {
  Scratch& s = scratch[member];
  const PackedMatrix& matrix = weights.head();
  const int64_t v = config.vocab_size, chunks = (v + kChunk - 1) / kChunk;
  const int64_t rows_asked = std::ssize(requests);
  reserve(s.y, most.head * kChunk);
  Rows rows{};
  int64_t prepared = -1;
  const int64_t blocks = (rows_asked + most.shared - 1) / most.shared;
  for (int64_t i; (i = claims_of_phase.take(1)) < blocks * chunks;) {
    const int64_t block = i / chunks, chunk = i % chunks;
    const int64_t begin = block * most.shared, end = std::min(rows_asked, begin + most.shared);
    if (block != prepared)
      rows = normed(s, asked.data() + first * hidden(), weights.final_norm(), matrix, begin, end);
    prepared = block;
    const int64_t from = chunk * kChunk, count = std::min(kChunk, v - from);
    const int64_t row_bytes = rows.ldx * (matrix.precision() == Precision::kInt8 ? 1 : element);
    for (int64_t r = begin; r < end; r += most.head) {
      Rows part = rows;
      part.x = static_cast<const char*>(rows.x) + (r - begin) * row_bytes;
      if (rows.x_scale) part.x_scale = rows.x_scale + (r - begin) * matrix.num_sections();
      part.rows = std::min(most.head, end - r);
      for (int64_t p = 0; p < (count + kPanel - 1) / kPanel; ++p)
        matrix.multiply(part, from / kPanel + p, s.y.data() + p * kPanel, kChunk);
      for (int64_t j = 0; j < part.rows; ++j) {
        const RowRequest& request = requests[r + j];
        const float* y = s.y.data() + j * kChunk;
        stats[(r + j) * chunks + chunk] = kernels().chunk_stats(y, count, request.sum);
        if (request.logits) std::memcpy(request.logits + from, y, count * sizeof(float));
        for (int32_t k = 0; k < request.num_ids; ++k)
          if (from <= request.ids[k] && request.ids[k] < from + count)
            request.out[k] = y[request.ids[k] - from];
      }
    }
  }
}

CpuNetwork::CpuNetwork(const WeightSource& source, Precision precision, int num_threads,
                       base::ProgressSink* progress)
    : Network(source.config(), precision),
      state_(std::make_unique<State>(config_, precision, num_threads)) {
  load(source, progress);
}

CpuNetwork::~CpuNetwork() = default;

void CpuNetwork::load(const WeightSource& source, base::ProgressSink* progress) {
  state_->weights.load(source, state_->team.size(), progress);
  if (precision_ != Precision::kGguf) return;
  // Here and not in a pass, where a thread has nobody to tell that there is no memory.
  const int64_t bytes = panel_bytes(config_, precision_);
  std::atomic<bool> enough = true;
  state_->team.run([&](int) {
    if (!PackedMatrix::reserve_panel(bytes)) enough = false;
  });
  if (!enough)
    base::fail(base::ErrorKind::kExhausted, "model", "too little memory to unpack weights");
}

int64_t CpuNetwork::page_bytes() const { return page_bytes_of(config_, precision_); }

std::unique_ptr<KvCache> CpuNetwork::make_cache(int64_t num_pages) const {
  return std::make_unique<CpuCache>(num_pages, page_bytes());
}

int64_t CpuNetwork::weight_bytes() const { return state_->weights.bytes(); }

int64_t CpuNetwork::scratch_bytes() const {
  const State& s = *state_;
  const auto bytes = [](const auto&... values) {
    return static_cast<int64_t>(((values.size() * sizeof(*values.data())) + ... + size_t{0}));
  };
  int64_t total = bytes(s.x, s.q, s.attended, s.gated, s.asked, s.slots, s.members, s.asked_members,
                        s.tasks, s.asked_tasks, s.stats, s.rotary.cos(), s.rotary.sin());
  for (const Scratch& own : s.scratch)
    total += bytes(own.wide, own.rows, own.scales, own.y, own.work);
  return total;
}

int64_t CpuNetwork::scratch_needed(const ModelConfig& config, Precision precision, int num_threads,
                                   int64_t tokens) {
  const int64_t h = padded(config.hidden_size), d = padded(config.head_dim),
                f = padded(config.intermediate_size), heads = config.num_attention_heads;
  const int members = num_threads > 0 ? num_threads : base::num_processors();
  const int64_t element = element_bytes(precision);
  const RowCounts& most = row_counts(precision);
  int64_t rows = 0;  // of the pass that has most in a block, which need not be the longest
  for (int64_t t = 1; t <= tokens; ++t) rows = std::max(rows, Blocks(t, members, most).most_rows());
  const int64_t floats = sizeof(float);
  int64_t member = rows * std::max(floats * h, precision == Precision::kInt8 ? f : 0);
  if (precision == Precision::kInt8) member += rows * floats * h;
  member += floats * std::max({rows * d, rows * kPanel, most.head * kChunk});
  member += floats * attention_work(d);
  if (precision == Precision::kGguf) member += panel_bytes(config, precision);
  const int64_t rotary = floats * config.head_dim * std::min<int64_t>(config.context(), 4096);
  return tokens * (floats * h + element * (2 * heads * d + f)) + rotary + members * member;
}

int64_t CpuNetwork::page_bytes_of(const ModelConfig& config, Precision precision) {
  const int64_t d = padded(config.head_dim);
  return config.num_hidden_layers * 2 * config.num_key_value_heads * d * kPageTokens *
         element_bytes(precision);
}

void CpuNetwork::forward(const Batch& batch, KvCache& cache) {
  batch.check(config_.vocab_size, config_.context(), cache.num_pages());
  state_->plan(batch);
  char* pages = static_cast<CpuCache&>(cache).data();
  state_->team.run([&](int member) { state_->pass(member, batch, pages); });
}

void CpuNetwork::read_rows(int64_t first, std::span<const RowRequest> requests,
                           std::span<RowResult> results) {
  State& s = *state_;
  ERANK_CHECK(
      requests.size() == results.size() && first >= 0 && first + std::ssize(requests) <= s.num_rows,
      "rows ", first, " to ", first + std::ssize(requests), " of ", s.num_rows);
  if (requests.empty()) return;
  const int64_t chunks = (config_.vocab_size + kChunk - 1) / kChunk;
  s.stats.resize(requests.size() * chunks);
  Claims& claims = s.claims[8 * config_.num_hidden_layers];
  claims.reset();
  s.team.run([&](int member) { s.head(member, claims, first, requests); });
  for (size_t r = 0; r < requests.size(); ++r) {
    const ChunkStats* row = s.stats.data() + r * chunks;
    RowResult& result = results[r];
    result = {};
    result.finite = true;
    result.max = -std::numeric_limits<float>::infinity();
    for (int64_t c = 0; c < chunks; ++c) {
      result.finite &= row[c].argmax >= 0;
      if (row[c].max > result.max) {
        result.max = row[c].max;
        result.argmax = static_cast<int32_t>(c * kChunk) + row[c].argmax;
      }
    }
    result.finite &= std::isfinite(result.max);
    if (!result.finite || !requests[r].sum) continue;
    for (int64_t c = 0; c < chunks; ++c)
      result.sum += double{row[c].sum} * std::exp(double{row[c].max} - double{result.max});
  }
}

}  // namespace erank::model::cpu
