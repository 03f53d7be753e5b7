#include "erank/model/decoder.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/max.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/silu.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <numeric>
#include <set>
#include <thread>

#include "erank/base/random.h"
#include "erank/model/kernels/ops.h"

namespace erank::model {
namespace {

ModelConfig small_config(Family family) {
  ModelConfig c;
  c.family = family;
  c.hidden_size = 48, c.intermediate_size = 80, c.num_hidden_layers = 3;
  c.num_attention_heads = 6, c.num_key_value_heads = 2, c.head_dim = 32;
  c.vocab_size = 97, c.max_position_embeddings = 512;
  c.rope_theta = 10000, c.rms_norm_eps = 1e-6;
  c.tie_word_embeddings = family == Family::kLlama;
  c.qkv_bias = family == Family::kQwen2;
  c.qk_norm = family == Family::kQwen3;
  return c;
}

std::vector<int32_t> random_ids(size_t n, int64_t vocab, uint64_t seed) {
  base::Random random(seed);
  std::vector<int32_t> ids(n);
  for (auto& id : ids) id = static_cast<int32_t>(random.below(vocab));
  return ids;
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>() /
         b.to(at::kDouble).abs().max().item<double>();
}

// A sequence and the pages it owns in a test's cache.
struct Sequence {
  std::vector<int32_t> ids;
  std::vector<int32_t> pages;
  int32_t computed = 0;
};

// Adds the next `count` ids of `s` to `batch` and asks for the last one's logits.
void schedule(Batch& batch, Sequence& s, int32_t count) {
  if (batch.starts.empty()) batch.starts.push_back(0);
  for (int32_t i = 0; i < count; ++i) {
    batch.tokens.push_back(s.ids[s.computed]);
    batch.positions.push_back(s.computed++);
  }
  batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
  batch.rows.push_back(static_cast<int32_t>(batch.tokens.size()) - 1);
  batch.pages.push_back(s.pages);
}

Batch whole(const std::vector<int32_t>& ids) {
  Batch batch;
  batch.tokens = ids;
  batch.positions.resize(ids.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.starts = {0, static_cast<int32_t>(ids.size())};
  batch.rows = {static_cast<int32_t>(ids.size()) - 1};
  return batch;
}

at::Tensor full_pass(Decoder& decoder, const std::vector<int32_t>& ids) {
  return decoder.forward(whole(ids), nullptr);
}

struct Case {
  Family family;
  at::ScalarType dtype;
  bool deterministic;
};

class Decoders : public testing::TestWithParam<Case> {};

TEST_P(Decoders, CachedInPiecesEqualsOneFullPass) {
  const at::NoGradGuard no_grad;
  const auto [family, dtype, deterministic] = GetParam();
  const ModelConfig config = small_config(family);
  Decoder decoder(config, {.dtype = dtype, .deterministic = deterministic});
  decoder.init_random(7, 0.2);
  KvCache cache(config, 40, dtype, at::kCPU);
  std::vector<Sequence> sequences;
  int32_t page = 39;  // pages in no order
  for (size_t n : {150u, 3u, 64u, 17u}) {
    Sequence s{random_ids(n, config.vocab_size, n), {}, 0};
    for (size_t i = 0; i < (n + 15) / 16; ++i) s.pages.push_back(page--);
    sequences.push_back(s);
  }
  base::Random random(3);
  std::vector<at::Tensor> last(sequences.size());
  for (bool more = true; more;) {
    more = false;
    Batch batch;
    std::vector<size_t> who;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const int32_t left = static_cast<int32_t>(sequences[i].ids.size()) - sequences[i].computed;
      if (left == 0) continue;
      schedule(batch, sequences[i],
               std::min<int32_t>(left, 1 + static_cast<int32_t>(random.below(70))));
      who.push_back(i);
    }
    if (who.empty()) break;
    more = true;
    const at::Tensor logits = decoder.forward(batch, &cache);
    for (size_t j = 0; j < who.size(); ++j) last[who[j]] = logits[static_cast<int64_t>(j)];
  }
  const double bound = dtype == at::kFloat ? 2e-6 : 3e-2;
  for (size_t i = 0; i < sequences.size(); ++i)
    EXPECT_LT(relative_error(last[i], full_pass(decoder, sequences[i].ids)[0]), bound) << i;
}

INSTANTIATE_TEST_SUITE_P(Tiny, Decoders,
                         testing::Values(Case{Family::kLlama, at::kFloat, false},
                                         Case{Family::kQwen2, at::kFloat, false},
                                         Case{Family::kQwen3, at::kFloat, false},
                                         Case{Family::kQwen3, at::kFloat, true},
                                         Case{Family::kQwen3, at::kBFloat16, false},
                                         Case{Family::kLlama, at::kBFloat16, true}));

TEST(TinyDecoderPlain, OddHeadSizesTakeThePlainPathAndAgree) {
  const at::NoGradGuard no_grad;
  ModelConfig config = small_config(Family::kQwen3);
  config.head_dim = 6;
  Decoder decoder(config, {});
  decoder.init_random(7, 0.2);
  KvCache cache(config, 4, at::kFloat, at::kCPU);
  Sequence s{random_ids(40, config.vocab_size, 1), {2, 0, 3}, 0};
  at::Tensor last;
  for (int32_t count : {20, 1, 19}) {
    Batch batch;
    schedule(batch, s, count);
    last = decoder.forward(batch, &cache)[0];
  }
  EXPECT_LT(relative_error(last, full_pass(decoder, s.ids)[0]), 2e-6);
}

TEST(TinyDecoderCopies, ASequenceTakesOverTokensThatTheSamePassComputes) {
  const at::NoGradGuard no_grad;
  for (const bool odd : {false, true}) {
    ModelConfig config = small_config(Family::kQwen3);
    if (odd) config.head_dim = 6;
    Decoder decoder(config, {});
    decoder.init_random(7, 0.2);
    KvCache cache(config, 6, at::kFloat, at::kCPU);
    Sequence a{random_ids(40, config.vocab_size, 1), {0, 1, 2}, 0};
    Sequence b{a.ids, {0, 3, 4}, 0};  // shares page 0 whole and 5 tokens of page 1
    for (size_t i = 21; i < b.ids.size(); ++i) b.ids[i] = (b.ids[i] + 1) % 97;
    b.computed = 21;
    Batch batch;
    schedule(batch, a, 40);
    schedule(batch, b, 19);
    for (int32_t i = 0; i < 5; ++i) batch.copies.push_back({16 + i, 48 + i});
    const at::Tensor logits = decoder.forward(batch, &cache);
    EXPECT_LT(relative_error(logits[0], full_pass(decoder, a.ids)[0]), 2e-6);
    EXPECT_LT(relative_error(logits[1], full_pass(decoder, b.ids)[0]), 2e-6);
  }
}

TEST(TinyDecoderDeterministic, BitsDoNotDependOnTheBatch) {
  const at::NoGradGuard no_grad;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const ModelConfig config = small_config(Family::kQwen3);
    Decoder decoder(config, {.dtype = dtype, .deterministic = true});
    decoder.init_random(7, 0.2);
    KvCache cache(config, 64, dtype, at::kCPU);
    const auto ids = random_ids(130, config.vocab_size, 5);
    std::vector<int32_t> pages(9);
    std::iota(pages.begin(), pages.end(), 0);
    const auto run = [&](const std::vector<int32_t>& counts, int others) {
      Sequence s{ids, pages, 0};
      at::Tensor last;
      for (int32_t count : counts) {
        Batch batch;
        for (int o = 0; o < others; ++o) {
          Sequence other{random_ids(23, config.vocab_size, 100 + o), {20 + 2 * o, 21 + 2 * o}, 0};
          schedule(batch, other, 23);
        }
        schedule(batch, s, count);
        last = decoder.forward(batch, &cache)[others];
      }
      return last;
    };
    const at::Tensor alone = run({130}, 0);
    EXPECT_TRUE(at::equal(alone, run({130}, 3)));
    EXPECT_TRUE(at::equal(alone, run({1, 64, 64, 1}, 2)));
    EXPECT_TRUE(at::equal(alone, run({77, 53}, 5)));
  }
}

TEST(TinyKernels, EqualTheirPlainCompositions) {
  const at::NoGradGuard no_grad;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const double bound = dtype == at::kFloat ? 1e-6 : 8e-3;
    for (const int64_t width : {5, 16, 100, 576}) {
      const auto options = at::TensorOptions().dtype(dtype);
      for (const int64_t rows : {1, 2, 7, 33}) {
        const at::Tensor x = at::randn({rows, width}, options), w = at::randn({13, width}, options);
        const at::Tensor bias = at::randn({13}, options);
        EXPECT_LT(
            relative_error(kernels::linear(x, w, bias),
                           at::linear(x.to(at::kDouble), w.to(at::kDouble), bias.to(at::kDouble))),
            bound);
        EXPECT_LT(relative_error(kernels::linear(x, w, {}, true),
                                 at::linear(x.to(at::kDouble), w.to(at::kDouble))),
                  1e-6);
        const at::Tensor gate_up = at::randn({rows, 2 * width}, options) * 5;
        const at::Tensor wide = gate_up.to(at::kDouble);
        EXPECT_LT(relative_error(kernels::silu_mul(gate_up),
                                 at::silu(wide.narrow(1, 0, width)) * wide.narrow(1, width, width)),
                  bound);
        at::Tensor sum = x.clone();
        const at::Tensor delta = at::randn({rows, width}, options),
                         weight = at::randn({width}, options);
        const at::Tensor y = kernels::add_rms_norm(sum, delta, weight, 1e-5);
        EXPECT_LT(relative_error(sum, x.to(at::kDouble) + delta.to(at::kDouble)), bound);
        EXPECT_LT(relative_error(
                      y, at::rms_norm(sum.to(at::kDouble), {width}, weight.to(at::kDouble), 1e-5)),
                  bound);
      }
    }
  }
}

TEST(TinyThreads, OneOpenMpRuntimeAndAParallelLoopThatIsParallel) {
  std::ifstream maps("/proc/self/maps");
  std::set<std::string> runtimes;
  for (std::string line; std::getline(maps, line);)
    for (const char* name : {"libgomp", "libiomp", "libomp.so"})
      if (line.find(name) != std::string::npos) runtimes.insert(line.substr(line.find('/')));
  EXPECT_EQ(runtimes.size(), 1u);
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  std::atomic<int> arrived{0};
  at::parallel_for(0, 2, 1, [&](int64_t, int64_t) {
    ++arrived;
    for (int i = 0; i < 1000 && arrived < 2; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::lock_guard lock(mutex);
    seen.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(seen.size(), 2u);
}

}  // namespace
}  // namespace erank::model
