// What every inference network promises: transformers' logits, and the same ones whatever is
// cached, shared, or beside it.
#include "erank/model/network.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/topk.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <iostream>
#include <memory>
#include <tuple>

#include "erank/base/error.h"
#include "erank/model/cpu/cpu_network.h"
#include "erank/model/cpu/kernels.h"
#include "erank/model/cuda/cuda_network.h"
#include "erank/model/lora.h"
#include "erank/model/weight_kernels.h"
#include "erank/model/weight_source.h"
#include "erank/model/weights.h"
#include "tests/model/golden.h"
#include "tests/model/kernels_emulated.h"
#include "tests/model/passes.h"
#include "tests/shared_data.h"

namespace erank::model {
namespace {

// A network under test, and how far from exact its precision may take it.
struct Factory {
  std::string name;
  std::function<std::unique_ptr<Network>(const WeightSource&)> make;
  // All are shares of the largest logit.
  double golden;   // against transformers, weights that every precision holds exactly
  double rounded;  // the same, weights that bf16 rounds
  double real;     // the same, a real model's weights
  double itself;   // against itself computed another way; 0: the same bits
};
std::ostream& operator<<(std::ostream& out, const Factory& factory) { return out << factory.name; }

std::unique_ptr<Network> reference(const WeightSource& source, Precision precision) {
  return std::make_unique<cuda::CudaNetwork>(source, precision, at::kCPU);
}

std::unique_ptr<Network> on_cpu(const WeightSource& source, Precision precision, int threads = 2) {
  return std::make_unique<cpu::CpuNetwork>(source, precision, threads);
}

std::vector<Factory> factories() {
  return {
      {"reference_fp32", [](const auto& source) { return reference(source, Precision::kFp32); },
       1e-5, 1e-5, 1e-4, 2e-6},
      {"reference_bf16", [](const auto& source) { return reference(source, Precision::kBf16); },
       1e-2, 5e-2, 5e-2, 3e-2},
      {"reference_int8", [](const auto& source) { return reference(source, Precision::kInt8); },
       5e-2, 1e-1, 2.5e-1, 3e-2},
      {"cpu_fp32", [](const auto& source) { return on_cpu(source, Precision::kFp32); }, 1e-5, 1e-5,
       1e-4, 0},
      {"cpu_bf16", [](const auto& source) { return on_cpu(source, Precision::kBf16); }, 1e-2, 5e-2,
       5e-2, 0},
      {"cpu_int8", [](const auto& source) { return on_cpu(source, Precision::kInt8); }, 5e-2, 1e-1,
       2.5e-1, 0},
  };
}

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

class Networks : public ::testing::TestWithParam<Factory> {
 protected:
  std::unique_ptr<Network> random_network(const ModelConfig& config) const {
    Parameters parameters(config, at::kFloat);
    parameters.init_random(7, 0.2);
    return GetParam().make(ParametersSource(parameters));
  }
  // Both families of norms, tied and untied, a head size that is no power of two, and windows that
  // begin inside and between the attention's steps of 64.
  std::vector<ModelConfig> configs() const {
    std::vector<ModelConfig> all;
    for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3})
      all.push_back(small_config(family));
    all.push_back(small_config(Family::kQwen3));
    all.back().head_dim = 6;
    for (const int64_t window : {1, 40, 66}) {
      all.push_back(small_config(Family::kQwen2));
      all.back().sliding_window = window, all.back().sliding_layers = {true, false, true};
    }
    return all;
  }
};

TEST_P(Networks, LogitsEqualTransformers) {
  const base::Json families = read_golden("model_families.json");
  for (const auto& [name, golden] : families.items()) {
    SCOPED_TRACE(name);
    Parameters parameters(ModelConfig::from_json(golden["config"], name), at::kFloat);
    fill_golden(parameters);
    const auto network = GetParam().make(ParametersSource(parameters));
    const auto sequences = golden["ids"].get<std::vector<std::vector<int32_t>>>();
    EXPECT_LE(
        largest_difference(whole_pass(*network, sequences), golden["columns"], golden["logits"]),
        GetParam().golden * golden["max_logit"].get<double>());
  }
}

// Rotary embeddings that are scaled for long texts, inside and past the original length, and
// sliding windows; config.json as it is given to transformers and as transformers writes it.
TEST_P(Networks, LogitsOfLongTextsEqualTransformers) {
  const base::Json golden = read_golden("model_long.json");
  for (const auto& [name, one] : golden["cases"].items()) {
    SCOPED_TRACE(name);
    const ModelConfig config = ModelConfig::from_json(one["given"], name);
    const ModelConfig stored = ModelConfig::from_json(one["stored"], name);
    EXPECT_EQ(stored.rope_scaling, config.rope_scaling);
    EXPECT_EQ(stored.rope_theta, config.rope_theta);
    EXPECT_EQ(stored.sliding_window, config.sliding_window);
    EXPECT_EQ(stored.sliding_layers, config.sliding_layers);
    Parameters parameters(config, at::kFloat);
    fill_golden(parameters);
    const auto network = GetParam().make(ParametersSource(parameters));
    for (const auto& [place, text] : one["texts"].items())
      EXPECT_LE(
          largest_difference(whole_pass(*network, {text["ids"].get<std::vector<int32_t>>()}),
                             one["columns"], text["rows"], golden["rows_apart"].get<int64_t>()),
          GetParam().golden * text["max_logit"].get<double>())
          << place;
  }
}

// A few places of the residual stream hold far larger values than the rest, and what reads them has
// small weights there, as trained models have it.
TEST(NetworkInt8, LargeActivationsOfFewPlacesDoNotDrownTheOthers) {
  ModelConfig config = small_config(Family::kLlama);
  config.hidden_size = 128, config.tie_word_embeddings = false;
  Parameters parameters(config, at::kFloat);
  parameters.init_random(11, 0.2);
  const at::NoGradGuard no_grad;
  for (const NamedTensor& parameter : parameters.named())
    for (const int64_t place : {5, 77, 100}) {
      if (parameter.name == "model.embed_tokens.weight")
        parameter.tensor.select(1, place).mul_(100);
      else if (parameter.tensor.dim() == 2 && parameter.tensor.size(1) == config.hidden_size)
        parameter.tensor.select(1, place).mul_(0.02);
    }
  const ParametersSource source(parameters);
  const std::vector<std::vector<int32_t>> ids = {random_ids(60, config.vocab_size, 4)};
  const at::Tensor exact = whole_pass(*on_cpu(source, Precision::kFp32), ids);
  const at::Tensor rounded = whole_pass(*on_cpu(source, Precision::kInt8), ids);
  // 0.17 here; 0.74 when their rounding is everybody's.
  EXPECT_LE((exact - rounded).abs().max().item<double>(), 0.3 * exact.abs().max().item<double>());
}

// Checkpoints that others made, with logits that others computed in float64.
TEST_P(Networks, LogitsEqualTheStoredOnes) {
  for (const std::string name : {"tiny-qwen3-f32", "tiny-llama-f32"}) {
    const std::string folder = erank::testing::shared_data("model-fixtures/" + name);
    if (folder.empty()) GTEST_SKIP() << "model-fixtures/" << name << " is not there";
    const base::Json golden =
        base::parse_json(base::read_file(folder + "/logits.json"), "logits.json");
    const auto network = GetParam().make(CheckpointSource::open(folder));
    base::Json columns = base::Json::array();
    for (int64_t i = 0; i < network->config().vocab_size; ++i) columns.push_back(i);
    for (size_t i = 0; i < golden["sequences"].size(); ++i) {
      const auto ids = golden["sequences"][i].get<std::vector<int32_t>>();
      double largest = 0;
      for (const auto& row : golden["logits"][i])
        for (const auto& value : row) largest = std::max(largest, std::abs(value.get<double>()));
      EXPECT_LE(largest_difference(whole_pass(*network, {ids}), columns, golden["logits"][i]),
                GetParam().rounded * largest)
          << name << " " << i;
    }
  }
}

TEST_P(Networks, CachedInPiecesEqualsOnePass) {
  for (const ModelConfig& config : configs()) {
    const auto network = random_network(config);
    const auto cache = network->make_cache(40);
    Pages pages(40, 5);
    std::vector<Sequence> sequences;
    for (const size_t n : {150u, 3u, 64u, 17u})
      sequences.push_back(pages.sequence(random_ids(n, config.vocab_size, n)));
    base::Random random(3);
    std::vector<at::Tensor> last(sequences.size());
    for (;;) {
      Batch batch;
      std::vector<size_t> who;
      for (size_t i = 0; i < sequences.size(); ++i) {
        const int32_t left = sequences[i].left();
        if (left == 0) continue;
        schedule(batch, sequences[i],
                 std::min<int32_t>(left, 1 + static_cast<int32_t>(random.below(70))));
        who.push_back(i);
      }
      if (who.empty()) break;
      const at::Tensor logits = forward(*network, batch, *cache);
      for (size_t j = 0; j < who.size(); ++j) last[who[j]] = logits[static_cast<int64_t>(j)];
    }
    for (size_t i = 0; i < sequences.size(); ++i)
      EXPECT_LE(relative_error(last[i], last_row(*network, sequences[i].ids)), GetParam().itself)
          << i;
  }
}

TEST_P(Networks, ASequenceTakesOverTokensThatTheSamePassComputes) {
  for (const ModelConfig& config : configs()) {
    const auto network = random_network(config);
    const auto cache = network->make_cache(6);
    Sequence a{random_ids(40, config.vocab_size, 1), {0, 1, 2}};
    Sequence b{a.ids, {0, 3, 4}};  // shares page 0 whole and 5 tokens of page 1
    for (size_t i = 21; i < b.ids.size(); ++i) b.ids[i] = (b.ids[i] + 1) % 97;
    b.computed = 21;
    Batch batch;
    schedule(batch, a, 40);
    schedule(batch, b, 19);
    for (int32_t i = 0; i < 5; ++i) batch.copies.push_back({16 + i, 48 + i});
    const at::Tensor logits = forward(*network, batch, *cache);
    EXPECT_LE(relative_error(logits[0], last_row(*network, a.ids)), GetParam().itself);
    EXPECT_LE(relative_error(logits[1], last_row(*network, b.ids)), GetParam().itself);
  }
}

TEST_P(Networks, OtherSequencesInThePassChangeNothing) {
  const ModelConfig config = small_config(Family::kQwen3);
  const auto network = random_network(config);
  const auto ids = random_ids(130, config.vocab_size, 5);
  const auto run = [&](const std::vector<int32_t>& counts, int others) {
    const auto cache = network->make_cache(64);
    Pages pages(64, static_cast<uint64_t>(10 + others));
    Sequence s = pages.sequence(ids);
    at::Tensor last;
    for (const int32_t count : counts) {
      Batch batch;
      for (int o = 0; o < others; ++o) {
        Sequence other = pages.sequence(random_ids(13, config.vocab_size, 100 + o));
        schedule(batch, other, 13);
      }
      schedule(batch, s, count);
      last = forward(*network, batch, *cache)[others];
    }
    return last;
  };
  const at::Tensor alone = run({130}, 0);
  for (const auto& [counts, others] :
       {std::pair(std::vector<int32_t>{130}, 3), std::pair(std::vector<int32_t>{1, 64, 64, 1}, 2),
        std::pair(std::vector<int32_t>{77, 53}, 5)})
    EXPECT_LE(relative_error(run(counts, others), alone), GetParam().itself) << others;
}

TEST_P(Networks, RowsAreReadTheSameHoweverTheyAreAsked) {
  const ModelConfig config = small_config(Family::kQwen2);
  const auto network = random_network(config);
  const auto cache = network->make_cache(8);
  Pages pages(8, 2);
  Sequence a = pages.sequence(random_ids(21, 97, 1)), b = pages.sequence(random_ids(9, 97, 2));
  Batch batch;
  schedule(batch, a, 21, true);
  schedule(batch, b, 9);
  const at::Tensor logits = forward(*network, batch, *cache).contiguous();
  const double near = GetParam().itself * logits.abs().max().item<double>();
  const int32_t ids[] = {96, 3, 3, 50};
  for (int64_t first = 0; first < 22; first += 5) {
    const int64_t count = std::min<int64_t>(5, 22 - first);
    std::vector<RowRequest> requests(count);
    std::vector<RowResult> results(count);
    std::vector<std::array<float, 4>> out(count);
    for (int64_t r = 0; r < count; ++r) {
      if (r % 2 == 0)
        requests[r].ids = ids, requests[r].out = out[r].data(), requests[r].num_ids = 4;
      requests[r].sum = r % 3 != 0;
    }
    network->read_rows(first, requests, results);
    for (int64_t r = 0; r < count; ++r) {
      const float* row = logits.const_data_ptr<float>() + (first + r) * 97;
      const float* most = std::max_element(row, row + 97);
      EXPECT_TRUE(results[r].finite);
      EXPECT_NEAR(row[results[r].argmax], *most, near);
      EXPECT_NEAR(results[r].max, *most, near);
      double sum = 0;
      for (int i = 0; i < 97; ++i) sum += std::exp(double{row[i]} - double{*most});
      if (requests[r].sum) {
        EXPECT_NEAR(std::log(results[r].sum), std::log(sum), 2 * near + 1e-6);
      }
      if (requests[r].ids) {
        for (int i = 0; i < 4; ++i) EXPECT_NEAR(out[r][i], row[ids[i]], near);
      }
    }
  }
}

TEST_P(Networks, RowsOfDamagedWeightsAreNotFinite) {
  for (const float bad : {INFINITY, -INFINITY, std::nanf("")}) {
    Parameters parameters(small_config(Family::kLlama), at::kFloat);
    parameters.init_random(7, 0.2);
    parameters.norm()[5] = bad;
    const auto network = GetParam().make(ParametersSource(parameters));
    const auto cache = network->make_cache(1);
    Sequence s{{1, 2, 3}, {0}};
    Batch batch;
    schedule(batch, s, 3);
    network->forward(batch, *cache);
    RowResult result;
    const RowRequest request{.sum = true};
    network->read_rows(0, {&request, 1}, {&result, 1});
    EXPECT_FALSE(result.finite) << bad;
  }
}

TEST_P(Networks, LoadTakesTheWeightsAnew) {
  const ModelConfig config = small_config(Family::kQwen3);
  Parameters first(config, at::kFloat), second(config, at::kFloat);
  first.init_random(1, 0.2), second.init_random(2, 0.2);
  const auto ids = random_ids(30, config.vocab_size, 4);
  const auto network = GetParam().make(ParametersSource(first));
  const at::Tensor before = last_row(*network, ids);
  network->load(ParametersSource(second));
  const auto fresh = GetParam().make(ParametersSource(second));
  EXPECT_EQ(relative_error(last_row(*network, ids), last_row(*fresh, ids)), 0);
  EXPECT_GT(relative_error(last_row(*network, ids), before), 0.1);
  network->load(ParametersSource(first));
  EXPECT_EQ(relative_error(last_row(*network, ids), before), 0);
}

// PEFT's own logits: the adapter is merged while the network reads it.
TEST_P(Networks, AnActiveAdapterIsMergedWhileItIsRead) {
  const base::Json golden = read_golden("model_lora.json")["plain"];
  const double tolerance = GetParam().rounded * golden["max_logit"].get<double>();
  Parameters parameters(ModelConfig::from_json(golden["config"], "golden"), at::kFloat);
  fill_golden(parameters);
  const auto sequences = golden["ids"].get<std::vector<std::vector<int32_t>>>();
  const auto network = GetParam().make(ParametersSource(parameters));
  const auto difference = [&] {
    return largest_difference(whole_pass(*network, sequences), golden["columns"], golden["logits"]);
  };
  EXPECT_GT(difference(), tolerance);
  parameters.add_adapter(
      "peft", load_adapter(parameters.config(),
                           std::string(ERANK_SOURCE_DIR) + "/tests/golden/model_lora_adapter"));
  network->load(ParametersSource(parameters));
  EXPECT_LE(difference(), tolerance);
  parameters.merge_active();
  network->load(ParametersSource(parameters));
  EXPECT_LE(difference(), tolerance);
}

TEST_P(Networks, BatchesThatContradictThemselvesAreMistakes) {
  const auto network = random_network(small_config(Family::kLlama));
  const auto cache = network->make_cache(4);
  const auto refuses = [&](const std::function<void(Batch&)>& spoil) {
    Sequence s{random_ids(20, 97, 1), {3, 1}};
    Batch batch;
    schedule(batch, s, 20);
    spoil(batch);
    EXPECT_THROW(network->forward(batch, *cache), base::InternalError);
  };
  refuses([](Batch& b) { b.tokens[3] = 97; });
  refuses([](Batch& b) { b.positions[4] = 512; });
  refuses([](Batch& b) { b.pages[0] = 4; });
  refuses([](Batch& b) { b.page_starts[1] = 1, b.pages.pop_back(); });
  refuses([](Batch& b) { b.rows = {20}; });
  refuses([](Batch& b) { b.copies.push_back({64, 0}); });
}

// Real weights against transformers' own reading of the same file.
void expect_real_logits(const Factory& factory, const std::string& file,
                        const std::string& golden_name) {
  const std::string path = base::cache_folder() + "/models/" + file;
  if (!base::file_exists(path))
    GTEST_SKIP() << path << " is not there; tools/setup --slow fetches it";
  const base::Json golden = read_golden(golden_name);
  const auto network = factory.make(CheckpointSource::open(path));
  double worst = 0;
  for (size_t i = 0; i < golden["logits"].size(); ++i) {
    const base::Json& expected = golden["logits"][i];
    const at::Tensor logits = whole_pass(*network, {golden["ids"][i].get<std::vector<int32_t>>()});
    const double tolerance = factory.real * expected["max"].get<double>();
    const double difference = largest_difference(logits, expected["columns"], expected["rows"], 2);
    EXPECT_LE(difference, tolerance) << i;
    worst = std::max(worst, difference / expected["max"].get<double>());
    const at::Tensor last = logits.select(0, logits.size(0) - 1);
    const auto [top, top_ids] = at::topk(last, 5);
    for (int64_t k = 0; k < 5; ++k) {
      EXPECT_NEAR(top[k].item<double>(), expected["top"][k].get<double>(), tolerance) << i;
      if (factory.real > 1e-4) continue;
      EXPECT_EQ(top_ids[k].item<int64_t>(), expected["top_ids"][k].get<int64_t>()) << i;
    }
    EXPECT_NEAR(last.norm().item<double>(), expected["norm"].get<double>(),
                factory.real * expected["norm"].get<double>());
  }
  std::cout << factory.name << ": logits differ by " << worst << " of the largest at most\n";
}

class RealNetworks : public ::testing::TestWithParam<Factory> {};
TEST_P(RealNetworks, SmolLm2LogitsEqualTransformers) {
  expect_real_logits(GetParam(), "SmolLM2-135M-Instruct.Q4_1.gguf", "model_real_smollm2.json");
}

class LargeNetworks : public ::testing::TestWithParam<Factory> {};
TEST_P(LargeNetworks, Qwen2LogitsEqualTransformers) {
  expect_real_logits(GetParam(), "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
                     "model_real_qwen2.json");
}

// Passes of every size, so that rows are divided in every way, on any number of threads.
TEST(TinyCpuNetwork, TheNumberOfThreadsAndRowsChangesNoBit) {
  for (const Precision precision : {Precision::kFp32, Precision::kBf16, Precision::kInt8}) {
    const ModelConfig config = small_config(Family::kQwen3);
    Parameters parameters(config, at::kFloat);
    parameters.init_random(7, 0.2);
    const ParametersSource source(parameters);
    const auto ids = random_ids(400, config.vocab_size, 5);
    const auto run = [&](int threads, const std::vector<int32_t>& counts, int others) {
      const auto network = on_cpu(source, precision, threads);
      const auto cache = network->make_cache(400);
      Pages pages(400, static_cast<uint64_t>(threads));
      Sequence s = pages.sequence(ids);
      at::Tensor last;
      for (const int32_t count : counts) {
        Batch batch;
        for (int o = 0; o < others; ++o) {
          Sequence other = pages.sequence(random_ids(9, config.vocab_size, 100 + o));
          schedule(batch, other, 9);
        }
        schedule(batch, s, count);
        last = forward(*network, batch, *cache)[others];
      }
      return last;
    };
    const at::Tensor alone = run(1, {400}, 0);
    for (const int threads : {1, 2, 3, 5})
      for (const auto& [counts, others] :
           {std::pair(std::vector<int32_t>{400}, 0), std::pair(std::vector<int32_t>{399, 1}, 30),
            std::pair(std::vector<int32_t>{1, 100, 250, 49}, 7)})
        EXPECT_EQ(relative_error(run(threads, counts, others), alone), 0)
            << precision_name(precision) << ", " << threads << " threads, " << others << " others";
  }
}

const auto name_of = [](const auto& info) { return info.param.name; };
// The GPU's kernels too, whose threads are emulated.
std::vector<Factory> factories_with_kernels() {
  std::vector<Factory> all = factories();
  for (const auto& [name, precision, like] :
       {std::tuple("kernels_fp32", Precision::kFp32, 0), {"kernels_bf16", Precision::kBf16, 1}}) {
    all.push_back(all[like]);
    all.back().name = name;
    all.back().make = [precision](const WeightSource& source) {
      return std::make_unique<cuda::CudaNetwork>(source, precision, at::kCPU, nullptr,
                                                 &cuda::emulated::kForwards);
    };
  }
  return all;
}
std::vector<Factory> factories_with_blocks() {
  std::vector<Factory> all = factories();
  all.push_back({"cpu_gguf", [](const auto& source) { return on_cpu(source, Precision::kGguf); },
                 1e-2, 5e-2, 5e-2, 0});
  return all;
}
// On the CPU it unpacks thousands of small pieces.
std::vector<Factory> slow_factories() {
  return {Factory{"reference_gguf",
                  [](const auto& source) { return reference(source, Precision::kGguf); }, 1e-2,
                  5e-2, 5e-2, 3e-2}};
}
INSTANTIATE_TEST_SUITE_P(Tiny, Networks, ::testing::ValuesIn(factories_with_kernels()), name_of);
INSTANTIATE_TEST_SUITE_P(Tiny, RealNetworks, ::testing::ValuesIn(factories_with_blocks()), name_of);
INSTANTIATE_TEST_SUITE_P(Slow, RealNetworks, ::testing::ValuesIn(slow_factories()), name_of);
INSTANTIATE_TEST_SUITE_P(Slow, LargeNetworks, ::testing::ValuesIn(factories_with_blocks()),
                         name_of);

// On GPUs, here by the same code on the CPU.
TEST(NetworkInt8, WeightsAloneGiveTheBitsOfTheirBf16) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3}) {
    const ModelConfig config = small_config(family);
    Parameters exact(config, at::kFloat), unpacked(config, at::kBFloat16);
    exact.init_random(7, 0.2);
    const auto from = exact.named(), to = unpacked.named();
    ASSERT_EQ(from.size(), to.size());
    int num_matrices = 0;
    for (size_t t = 0; t < from.size(); ++t) {
      at::Tensor values = from[t].tensor.detach().clone();
      if (from[t].name.ends_with("_proj.weight")) {
        ++num_matrices;
        const int64_t columns = values.size(1);
        auto* row = values.mutable_data_ptr<float>();
        std::vector<int8_t> steps(static_cast<size_t>(columns));
        for (int64_t r = 0; r < values.size(0); ++r, row += columns) {
          const float scale = weight_kernels().quantize(row, columns, steps.data());
          for (int64_t i = 0; i < columns; ++i) row[i] = scale * static_cast<float>(steps[i]);
        }
      }
      to[t].tensor.detach().copy_(values);
    }
    EXPECT_EQ(num_matrices, 7 * config.num_hidden_layers);
    const ParametersSource source(exact);
    const auto int8 = reference(source, Precision::kInt8),
               bf16 = reference(source, Precision::kBf16),
               same = reference(ParametersSource(unpacked), Precision::kBf16);
    const std::vector<std::vector<int32_t>> ids = {{1, 2, 3, 4, 5}, {7, 9}};
    EXPECT_TRUE(at::equal(whole_pass(*int8, ids), whole_pass(*same, ids)));
    EXPECT_FALSE(at::equal(whole_pass(*int8, ids), whole_pass(*bf16, ids)));
    EXPECT_LT(int8->weight_bytes(), bf16->weight_bytes());
    EXPECT_EQ(int8->page_bytes(), bf16->page_bytes());
  }
}

TEST(Precisions, HaveTheNamesOfTheirFlags) {
  EXPECT_STREQ(precision_name(Precision::kFp32), "fp32");
  EXPECT_STREQ(precision_name(Precision::kBf16), "bf16");
  EXPECT_STREQ(precision_name(Precision::kInt8), "int8");
  EXPECT_STREQ(precision_name(Precision::kGguf), "gguf");
  for (const Precision precision :
       {Precision::kFp32, Precision::kBf16, Precision::kInt8, Precision::kGguf})
    EXPECT_EQ(precision_named(precision_name(precision)), precision);
}

}  // namespace
}  // namespace erank::model
