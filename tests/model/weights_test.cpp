#include "erank/model/weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/max.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>

#include "erank/base/error.h"
#include "erank/data/safetensors.h"
#include "erank/model/checkpoint.h"
#include "tests/model/golden.h"
#include "tests/shared_data.h"

namespace erank::model {
namespace {

using base::Json;
using ::testing::AllOf;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

std::map<std::string, at::Tensor> tensors_of(const Parameters& parameters) {
  std::map<std::string, at::Tensor> all;
  for (const auto& [name, tensor] : parameters.named()) all.emplace(name, tensor);
  return all;
}

void expect_equal(const Parameters& a, const Parameters& b) {
  const auto first = tensors_of(a), second = tensors_of(b);
  ASSERT_EQ(first.size(), second.size());
  for (const auto& [name, tensor] : first) EXPECT_TRUE(at::equal(tensor, second.at(name))) << name;
}

ModelConfig small(Family family = Family::kQwen3, bool tied = false) {
  ModelConfig c = config_of_shape("tiny");
  c.family = family;
  c.qk_norm = family == Family::kQwen3;
  c.qkv_bias = family == Family::kQwen2;
  c.tie_word_embeddings = tied;
  c.vocab_size = 50;
  c.max_position_embeddings = 64;
  return c;
}

// What a checkpoint's files hold, so that a test can spoil it and write it again.
struct Contents {
  std::vector<data::TensorInfo> infos;
  std::vector<std::string> bytes;

  static Contents golden(const ModelConfig& config) {
    Contents contents;
    for (const TensorShape& shape : parameter_shapes(config))
      contents.add(shape.name, golden_fill(shape.name, shape.shape));
    return contents;
  }
  void add(const std::string& name, const at::Tensor& fp32) {
    infos.push_back({name, data::DType::kF32, fp32.sizes().vec(), 0, 0});
    bytes.emplace_back(static_cast<const char*>(fp32.const_data_ptr()), fp32.nbytes());
  }
  void remove(size_t i) {
    infos.erase(infos.begin() + static_cast<int64_t>(i));
    bytes.erase(bytes.begin() + static_cast<int64_t>(i));
  }
  void write(const std::string& path) const {
    data::SafetensorsWriter writer(path, infos);
    for (const std::string& b : bytes)
      writer.write({reinterpret_cast<const uint8_t*>(b.data()), b.size()});
    writer.commit();
  }
};

void write_config(const ModelConfig& config, const std::string& folder) {
  base::write_file_atomic(folder + "/config.json", config.to_json("float32").dump());
}

std::string fault_of(const std::string& path) {
  try {
    load_parameters(path, at::kFloat);
    return "";
  } catch (const base::Error& e) {
    return e.what();
  }
}

std::string fault_of(const ModelConfig& config, const Contents& contents) {
  const TestFolder folder;
  write_config(config, folder.path());
  contents.write(folder.path("model.safetensors"));
  return fault_of(folder.path());
}

TEST(TinyWeights, ParametersAndFilesAgreeOnNamesAndShapes) {
  for (const Family family : {Family::kLlama, Family::kQwen2, Family::kQwen3})
    for (const bool tied : {false, true}) {
      const Parameters owner(small(family, tied), at::kFloat);
      const auto parameters = owner.named();
      const auto shapes = parameter_shapes(owner.config());
      ASSERT_EQ(parameters.size(), shapes.size());
      for (size_t i = 0; i < shapes.size(); ++i) {
        EXPECT_EQ(parameters[i].name, shapes[i].name);
        EXPECT_EQ(parameters[i].tensor.sizes().vec(), shapes[i].shape) << shapes[i].name;
      }
    }
}

TEST(TinyWeights, SavedAndLoadedAgainAreTheSameInOneFileOrInShards) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t shard : {kMaxShardBytes, int64_t{60000}}) {
      Parameters parameters(small(Family::kQwen2), dtype);
      parameters.init_random(3);
      const TestFolder folder;
      save_weights(parameters, folder.path("model"), shard);
      EXPECT_EQ(base::file_exists(folder.path("model/model.safetensors")), shard == kMaxShardBytes);
      const auto again = load_parameters(folder.path("model"), dtype);
      EXPECT_EQ(again->config().to_json(), parameters.config().to_json());
      expect_equal(*again, parameters);
    }
}

TEST(TinyWeights, SavingAgainLeavesNothingOfTheOlderModel) {
  Parameters older(small(), at::kFloat), newer(small(), at::kFloat);
  older.init_random(1), newer.init_random(2);
  const TestFolder folder;
  save_weights(older, folder.path());
  save_weights(newer, folder.path(), 60000);
  expect_equal(*load_parameters(folder.path(), at::kFloat), newer);
  save_weights(older, folder.path());
  expect_equal(*load_parameters(folder.path(), at::kFloat), older);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 2);

  // Files of other names, and shards that no index names, are someone else's.
  const std::vector<std::string> foreign = {"model-notes.safetensors", "model_old.safetensors",
                                            "model-00001-of-00099.safetensors", "keep.json"};
  for (const auto& name : foreign) folder.write(name, "foreign");
  save_weights(newer, folder.path(), 60000);
  folder.write("model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"keep.json\", \"b\": \"../up.safetensors\"}}");
  save_weights(older, folder.path());
  expect_equal(*load_parameters(folder.path(), at::kFloat), older);
  for (const auto& name : foreign) EXPECT_EQ(base::read_file(folder.path(name)), "foreign");
}

TEST(TinyWeights, Int8FilesHoldEachOutputOver127AndAreReadBack) {
  ModelConfig config = small();
  config.tie_word_embeddings = false;
  Parameters parameters(config, at::kFloat);
  parameters.init_random(3, 0.2);
  const TestFolder folder;
  save_int8_weights(ParametersSource(parameters), folder.path());
  EXPECT_EQ(load_config(folder.path()).hidden_size, config.hidden_size);
  const auto source = CheckpointSource::open(folder.path());
  EXPECT_TRUE(source.files().has_int8());
  const auto read = load_parameters(folder.path(), at::kFloat);
  const auto before = parameters.named(), after = read->named();
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) {
    const at::Tensor &a = before[i].tensor, &b = after[i].tensor;
    const std::string& name = before[i].name;
    const bool quantised = name.find("_proj.weight") != std::string::npos;
    for (int64_t r = 0; r < a.size(0); ++r) {
      const double largest = a[r].abs().max().item<double>();
      // Half a step, or what bf16 rounds.
      const double bound = quantised ? largest / 127 * 0.501 : largest / 256;
      EXPECT_LE((a[r] - b[r]).abs().max().item<double>(), bound) << name << " row " << r;
      if (quantised) {
        EXPECT_NEAR(b[r].abs().max().item<double>(), largest, 1e-6 * largest) << name;
      }
    }
  }
  // Quantised again, nothing changes.
  const TestFolder again;
  save_int8_weights(CheckpointSource::open(folder.path()), again.path());
  const auto twice = load_parameters(again.path(), at::kFloat)->named();
  for (size_t i = 0; i < after.size(); ++i)
    EXPECT_LE((after[i].tensor - twice[i].tensor).abs().max().item<double>(), 1e-6)
        << after[i].name;
}

TEST(TinyWeights, WhatIsNotFiniteIsNotSaved) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()})
      for (const char* name : {"model.layers.1.mlp.up_proj.weight", "model.norm.weight"}) {
        Parameters parameters(small(), dtype);
        parameters.init_random(3);
        for (auto& [parameter, tensor] : parameters.named())
          if (parameter == name) tensor.view({-1})[5] = bad;
        const TestFolder folder;
        const auto fault = [&](const std::function<void()>& save) -> std::string {
          try {
            save();
          } catch (const base::Error& e) {
            return e.what();
          }
          return "";
        };
        EXPECT_THAT(fault([&] { save_weights(parameters, folder.path("m")); }),
                    ::testing::HasSubstr(base::str("'", name, "' has values that are not finite")));
        EXPECT_FALSE(base::folder_exists(folder.path("m")));
        EXPECT_THAT(
            fault([&] { save_int8_weights(ParametersSource(parameters), folder.path("q")); }),
            ::testing::HasSubstr(base::str("'", name, "' has values that are not finite")));
        EXPECT_FALSE(base::file_exists(folder.path("q/model.safetensors")));
      }
}

TEST(TinyWeights, Int8WithoutItsScalesOrInAnotherFormIsOneClearError) {
  Parameters parameters(small(), at::kFloat);
  parameters.init_random(3, 0.2);
  const TestFolder folder;
  save_int8_weights(ParametersSource(parameters), folder.path());
  std::string config = base::read_file(folder.path("config.json"));
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string changed = config;
    changed.replace(changed.find(from), from.size(), to);
    return changed;
  };
  for (const auto& [from, to] :
       {std::pair<std::string, std::string>{"int-quantized", "pack-quantized"},
        {"\"channel\"", "\"group\""},
        {"\"num_bits\": 8", "\"num_bits\": 4"}}) {
    folder.write("config.json", replaced(from, to));
    EXPECT_THROW(load_config(folder.path()), base::Error) << to;
  }
  folder.write("config.json", config);
  std::string weights = base::read_file(folder.path("model.safetensors"));
  const std::string scale = "down_proj.weight_scale";
  weights.replace(weights.find(scale), scale.size(), "down_proj.weight_skale");
  folder.write("model.safetensors", weights);
  try {
    CheckpointSource::open(folder.path());
    FAIL() << "a matrix without scales was read";
  } catch (const base::Error& e) {
    EXPECT_NE(std::string(e.what()).find("down_proj.weight_scale"), std::string::npos) << e.what();
  }
}

TEST(TinyWeights, EveryFloatTypeIsConvertedOnceToTheRunsType) {
  const ModelConfig config = small();
  const Contents fp32 = Contents::golden(config);  // values exact in F16 and BF16 too
  Parameters expected(config, at::kFloat), expected_bf16(config, at::kBFloat16);
  fill_golden(expected), fill_golden(expected_bf16);
  for (const auto dtype : {data::DType::kF32, data::DType::kF16, data::DType::kBF16}) {
    Contents contents = fp32;
    for (size_t i = 0; i < contents.infos.size(); ++i) {
      contents.infos[i].dtype = dtype;
      if (dtype == data::DType::kF32) continue;
      const at::Tensor converted = golden_fill(contents.infos[i].name, contents.infos[i].shape)
                                       .to(dtype == data::DType::kF16 ? at::kHalf : at::kBFloat16);
      contents.bytes[i].assign(static_cast<const char*>(converted.const_data_ptr()),
                               converted.nbytes());
    }
    const TestFolder folder;
    write_config(config, folder.path());
    contents.write(folder.path("model.safetensors"));
    expect_equal(*load_parameters(folder.path(), at::kFloat), expected);
    expect_equal(*load_parameters(folder.path(), at::kBFloat16), expected_bf16);
  }
}

TEST(TinyWeights, MissingSurplusAndMisshapenTensorsAreNamed) {
  const ModelConfig config = small();
  const Contents whole = Contents::golden(config);
  EXPECT_EQ(fault_of(config, whole), "");

  Contents missing = whole;
  missing.remove(3);
  EXPECT_THAT(fault_of(config, missing),
              AllOf(HasSubstr("1 tensor(s) missing"), HasSubstr("'" + whole.infos[3].name + "'")));
  Contents surplus = whole;
  for (int i = 0; i < 7; ++i) surplus.add(base::str("extra.", i), golden_fill("x", {2, 3}));
  EXPECT_THAT(fault_of(config, surplus),
              AllOf(HasSubstr("7 tensor(s)"), HasSubstr("'extra.4' and 2 more")));
  Contents misshapen = whole;
  misshapen.infos[1].shape = {32, 2};
  EXPECT_THAT(fault_of(config, misshapen),
              AllOf(HasSubstr("[load_weights] "), HasSubstr("model.safetensors: tensor '"),
                    HasSubstr("has shape [32, 2], expected [64]")));
  Contents integers = whole;
  integers.infos[0].dtype = data::DType::kI32;
  EXPECT_THAT(fault_of(config, integers), HasSubstr("element type I32"));
  // An untied model needs its head, a tied one must not have another one.
  ModelConfig tied = config;
  tied.tie_word_embeddings = true;
  EXPECT_THAT(fault_of(tied, whole), HasSubstr("differs from the embedding"));
  Contents headless = whole;
  headless.remove(headless.infos.size() - 1);
  EXPECT_THAT(fault_of(config, headless), HasSubstr("'lm_head.weight'"));
}

TEST(TinyWeights, SurplusTensorsThatSayWhatWeComputeAreAccepted) {
  const ModelConfig tied = small(Family::kLlama, true);
  Contents contents = Contents::golden(tied);
  contents.add("lm_head.weight", golden_fill("model.embed_tokens.weight", {50, 64}));
  at::Tensor frequencies = at::empty({16}, at::dtype(at::kFloat));
  for (int i = 0; i < 16; ++i)
    frequencies.mutable_data_ptr<float>()[i] =
        static_cast<float>(std::pow(tied.rope_theta, -2.0 * i / 32));
  contents.add("model.layers.0.self_attn.rotary_emb.inv_freq", frequencies);
  EXPECT_EQ(fault_of(tied, contents), "");
  ModelConfig scaled = tied;  // transformers kept the plain ones, or those it computes with
  scaled.rope_scaling.kind = RopeKind::kLinear;
  scaled.rope_scaling.factor = 4;
  EXPECT_EQ(fault_of(scaled, contents), "");
  for (int i = 0; i < 16; ++i) frequencies.mutable_data_ptr<float>()[i] /= 4;
  contents.remove(contents.infos.size() - 1);
  contents.add("model.rotary_emb.inv_freq", frequencies);
  EXPECT_EQ(fault_of(scaled, contents), "");
  EXPECT_THAT(fault_of(tied, contents), HasSubstr("differs from the rotary frequencies"));
  for (int i = 0; i < 16; ++i) frequencies.mutable_data_ptr<float>()[i] *= 4;
  frequencies.mutable_data_ptr<float>()[3] *= 1.1f;
  contents.remove(contents.infos.size() - 1);
  contents.add("model.layers.0.self_attn.rotary_emb.inv_freq", frequencies);
  EXPECT_THAT(fault_of(tied, contents), HasSubstr("inv_freq"));
}

TEST(TinyWeights, RotaryTablesOfOldExportsAreIgnoredWhereTheyAgree) {
  ModelConfig config = small();
  const Contents contents = Contents::golden(config);
  const auto with_tables = [&](double theta, double factor, at::ScalarType type) {
    const int64_t positions = 300, dim = config.head_dim;
    at::Tensor cos = at::empty({1, 1, positions, dim}, at::kFloat), sin = at::empty_like(cos);
    for (int64_t p = 0; p < positions; ++p)
      for (int64_t i = 0; i < dim; ++i) {
        const double angle =
            static_cast<double>(p) *
            std::pow(theta, -2.0 * static_cast<double>(i % (dim / 2)) / static_cast<double>(dim)) /
            factor;
        cos.mutable_data_ptr<float>()[p * dim + i] = static_cast<float>(std::cos(angle));
        sin.mutable_data_ptr<float>()[p * dim + i] = static_cast<float>(std::sin(angle));
      }
    Contents all = contents;
    const std::string name = "model.layers.0.self_attn.rotary_emb.";
    all.add(name + "cos_cached", cos.to(type).to(at::kFloat));
    all.add(name + "sin_cached", sin.to(type).to(at::kFloat));
    return fault_of(config, all);
  };
  for (const auto type : {at::kFloat, at::kHalf, at::kBFloat16})
    EXPECT_EQ(with_tables(config.rope_theta, 1, type), "");
  EXPECT_THAT(with_tables(config.rope_theta * 2, 1, at::kFloat), HasSubstr("cos_cached' differs"));
  EXPECT_THAT(with_tables(config.rope_theta, 2, at::kFloat), HasSubstr("cos_cached' differs"));
  config.rope_scaling.kind = RopeKind::kLinear;
  config.rope_scaling.factor = 2;
  EXPECT_EQ(with_tables(config.rope_theta, 2, at::kFloat), "");
  EXPECT_EQ(with_tables(config.rope_theta, 1, at::kFloat), "");
}

TEST(TinyWeights, HostileFoldersAreOneClearError) {
  const ModelConfig config = small();
  const TestFolder folder;
  EXPECT_THAT(fault_of(folder.path()), HasSubstr("config.json"));
  write_config(config, folder.path());
  EXPECT_THAT(fault_of(folder.path()), HasSubstr("model.safetensors"));

  Parameters parameters(config, at::kFloat);
  parameters.init_random(1);
  save_weights(parameters, folder.path(), 60000);
  const std::string index_path = folder.path("model.safetensors.index.json");
  const Json index = Json::parse(base::read_file(index_path));
  const auto with_index = [&](const Json& changed) {
    base::write_file_atomic(index_path, changed.dump());
    const std::string fault = fault_of(folder.path());
    base::write_file_atomic(index_path, index.dump());
    return fault;
  };
  EXPECT_EQ(with_index(index), "");
  const std::string last = index["weight_map"].rbegin().key();
  Json changed = index;
  changed["weight_map"][last] = "../outside.safetensors";
  EXPECT_THAT(with_index(changed), HasSubstr("../outside.safetensors"));
  changed["weight_map"][last] = "/etc/passwd";
  EXPECT_THAT(with_index(changed), HasSubstr("/etc/passwd"));
  changed["weight_map"][last] = "model.safetensors.index.json";  // the index itself: a cycle
  EXPECT_NE(with_index(changed), "");
  changed["weight_map"][last] = "gone.safetensors";
  EXPECT_THAT(with_index(changed), HasSubstr("gone.safetensors"));
  changed["weight_map"][last] = index["weight_map"]["model.embed_tokens.weight"];
  EXPECT_THAT(with_index(changed), HasSubstr(last));
  changed = index;
  changed["weight_map"]["not.there"] = index["weight_map"][last];
  EXPECT_THAT(with_index(changed), HasSubstr("not.there"));
  EXPECT_NE(with_index(Json::array()), "");
  EXPECT_NE(with_index(Json::object()), "");

  const std::string shard = folder.path(index["weight_map"][last].get<std::string>());
  const std::string bytes = base::read_file(shard);
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, bytes.size() - 1}) {
    base::write_file_atomic(shard, bytes.substr(0, size));
    EXPECT_THAT(fault_of(folder.path()), HasSubstr(fs::path(shard).filename().string())) << size;
  }
}

TEST(TinyWeights, RandomFilesDependOnTheSeedAlone) {
  const TestFolder folder;
  const ModelConfig config = small(Family::kQwen2);
  write_random_weights(config, 5, at::kBFloat16, folder.path("a"));
  write_random_weights(config, 5, at::kBFloat16, folder.path("b"), 60000);
  write_random_weights(config, 6, at::kBFloat16, folder.path("c"));
  const auto a = load_parameters(folder.path("a"), at::kFloat),
             b = load_parameters(folder.path("b"), at::kFloat),
             c = load_parameters(folder.path("c"), at::kFloat);
  expect_equal(*a, *b);
  const at::Tensor table = a->named()[0].tensor;
  EXPECT_FALSE(at::equal(table, c->named()[0].tensor));
  EXPECT_NEAR(table.std().item<double>(), 0.02, 0.001);
  EXPECT_NEAR(table.mean().item<double>(), 0, 0.002);
  EXPECT_EQ(tensors_of(*a).at("model.norm.weight").min().item<double>(), 1);
  EXPECT_EQ(tensors_of(*a).at("model.layers.1.self_attn.q_proj.bias").abs().max().item<double>(),
            0);
}

std::string fixture() { return erank::testing::shared_data("model-fixtures/gguf-and-shards"); }

// The fixture's shards as a folder that has the usual names.
void make_sharded_folder(const std::string& folder, const ModelConfig& config) {
  write_config(config, folder);
  fs::copy(fixture() + "/tiny_llama.safetensors.index.json",
           folder + "/model.safetensors.index.json");
  for (const char* shard :
       {"tiny_llama-00001-of-00002.safetensors", "tiny_llama-00002-of-00002.safetensors"})
    fs::copy(fixture() + "/" + shard, folder + "/" + shard);
}

TEST(TinyGgufFixture, EqualsTheSameWeightsAsSafetensors) {
  if (fixture().empty()) GTEST_SKIP() << "model-fixtures/gguf-and-shards is not there";
  const TestFolder folder;
  const auto gguf = load_parameters(fixture() + "/tiny_llama_f32.gguf", at::kFloat);
  make_sharded_folder(folder.path(), gguf->config());
  const auto shards = load_parameters(folder.path(), at::kFloat);
  expect_equal(*gguf, *shards);
  const auto half = load_parameters(fixture() + "/tiny_llama_f16.gguf", at::kFloat);
  for (const auto& [name, tensor] : tensors_of(*half)) {
    const at::Tensor exact = tensors_of(*shards).at(name);
    EXPECT_LE((tensor - exact).abs().max().item<double>(), exact.abs().max().item<double>() / 2048)
        << name;
  }
}

TEST(TinyGgufFixture, Q8IsWithinItsRoundingOfTheOriginal) {
  if (fixture().empty()) GTEST_SKIP() << "model-fixtures/gguf-and-shards is not there";
  const TestFolder folder;
  fs::copy(fixture() + "/tiny_llama_q8_config.json", folder.path("config.json"));
  fs::copy(fixture() + "/tiny_llama_q8.safetensors", folder.path("model.safetensors"));
  const auto gguf = load_parameters(fixture() + "/tiny_llama_q8.gguf", at::kFloat);
  const auto original = load_parameters(folder.path(), at::kFloat);
  for (const auto& [name, tensor] : tensors_of(*gguf)) {
    const at::Tensor exact = tensors_of(*original).at(name);
    // Half a step, and what the scale loses in half precision.
    const double step = exact.abs().max().item<double>() / 127;
    EXPECT_LE((tensor - exact).abs().max().item<double>(), 0.57 * step) << name;
  }
}

// A line of /proc/self/status, in bytes.
double status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(key + ":")) return std::stod(line.substr(key.size() + 1)) * 1024;
  return NAN;
}

// Lets VmHWM, the most memory that this process has held, begin anew.
void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

// Of memory above what the process holds before, which is mostly libtorch itself.
void expect_light_loading(const char* shape, double max_seconds) {
  const TestFolder folder;
  const ModelConfig config = config_of_shape(shape);
  write_random_weights(config, 1, at::kBFloat16, folder.path());
  reset_peak();
  const double before = status_bytes("VmRSS");
  const auto begin = std::chrono::steady_clock::now();
  const auto parameters = load_parameters(folder.path(), at::kBFloat16);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const auto size = static_cast<double>(2 * config.num_parameters());
  const double peak = status_bytes("VmHWM") - before;
  std::printf("%s: %.2f GB in %.1f s, peak %.2f GB = %.3f of its size\n", shape, size / 1e9,
              seconds, peak / 1e9, peak / size);
  EXPECT_LT(seconds, max_seconds);
  EXPECT_LT(peak, 1.3 * size);
  EXPECT_EQ(parameters->named().front().tensor.size(0), config.vocab_size);
}

TEST(TinyLoading, Of300MbHoldsLittleMoreThanTheModel) { expect_light_loading("smollm2-135m", 60); }

TEST(SlowLoading, Of8GbTakesUnderAMinuteAndLittleMoreThanTheModel) {
  if (fs::space(fs::temp_directory_path()).available < uintmax_t{12} << 30)
    GTEST_SKIP() << "needs 12 GB of free disk";
  expect_light_loading("qwen3-4b", 60);
}

}  // namespace
}  // namespace erank::model
