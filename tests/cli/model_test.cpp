#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <string>

#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/model/lora.h"
#include "erank/model/make_network.h"
#include "erank/model/tensor_file.h"
#include "erank/model/weight_source.h"
#include "erank/model/weights.h"
#include "tests/exact_bits.h"
#include "tests/model/golden.h"
#include "tests/model/passes.h"
#include "tests/model/random_gguf.h"
#include "tests/test_folder.h"

namespace erank::cli {
namespace {

using ::testing::HasSubstr;

// `erank model` as a user runs it.
class TinyModelVerb : public ::testing::Test {
 protected:
  // Runs `erank model ARGS` with stderr joined to stdout; sets exit_code_.
  std::string run(const std::string& args) {
    const std::string line = std::string(ERANK_BINARY_DIR) + "/erank model " + args + " 2>&1";
    std::FILE* pipe = ::popen(line.c_str(), "r");
    EXPECT_NE(pipe, nullptr);
    std::string text;
    char buffer[4096];
    for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) text.append(buffer, n);
    const int status = ::pclose(pipe);
    exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return text;
  }
  std::string path(const std::string& name) const { return folder_.path(name); }

  TestFolder folder_;
  int exit_code_ = -1;
};

TEST_F(TinyModelVerb, RandomMakesAWholeFolderThatInfoAndLogitsRead) {
  EXPECT_EQ(run("random --shape tiny --seed 3 --out " + path("m")), "");
  ASSERT_EQ(exit_code_, 0);
  const auto info = base::parse_json(run("info --json " + path("m")), "info");
  EXPECT_EQ(exit_code_, 0);
  EXPECT_EQ(info["family"], "qwen3");
  EXPECT_EQ(info["parameters"], 164288);
  EXPECT_EQ(info["dtypes"]["BF16"], info["tensors"]);
  EXPECT_TRUE(info["flops_per_token"].is_number_integer());
  EXPECT_FALSE(info.contains("defaults")) << "it has no erank.json";
  EXPECT_EQ(info["kv_bytes_per_token_bf16"],
            2 * 2 * 2 * 32 * 2);  // layers, k and v, heads, D, bytes
  const base::Json& memory = info["memory"];
  EXPECT_GT(memory["available_bytes"], 1000000);
  EXPECT_EQ(memory["precisions"].size(), 3u) << "no GGUF file";
  const auto network = model::make_network(model::CheckpointSource::open(path("m")),
                                           {.precision = model::Precision::kBf16});
  const base::Json& bf16 = memory["precisions"]["bf16"];
  EXPECT_EQ(bf16["weight_bytes"], network->weight_bytes());
  EXPECT_EQ(bf16["total_bytes"].get<int64_t>(), bf16["weight_bytes"].get<int64_t>() +
                                                    bf16["kv_cache_bytes"].get<int64_t>() +
                                                    bf16["scratch_bytes"].get<int64_t>());
  EXPECT_EQ(bf16["fits"], true);
  EXPECT_THAT(run("info " + path("m")), HasSubstr("memory in int8"));
  EXPECT_EQ(info["tokenizer"]["vocab_size"], 512);
  EXPECT_EQ(info["template"]["stop_ids"][0], 258);

  base::write_file_atomic(
      path("in.jsonl"),
      "{\"ids\": [72, 101, 3]}\n{\"ids\": [72, 101, 3], \"positions\": [2, 0, 2]}\n");
  const std::string lines = run("logits --model " + path("m") + " --in " + path("in.jsonl"));
  ASSERT_EQ(exit_code_, 0) << lines;
  const size_t end = lines.find('\n');
  const auto last = base::parse_json(lines.substr(0, end), "last")["logits"];
  const auto three = base::parse_json(lines.substr(end + 1), "three")["logits"];
  ASSERT_EQ(last.size(), 1u);
  ASSERT_EQ(last[0].size(), 512u);
  ASSERT_EQ(three.size(), 3u);
  double different = 0;
  for (size_t i = 0; i < 512; ++i) {
    const double expected = last[0][i].get<double>();
    EXPECT_NEAR(three[0][i].get<double>(), expected, kExactBits ? 0 : 1e-5);
    EXPECT_EQ(three[2][i], three[0][i]);
    different = std::max(different, std::abs(three[1][i].get<double>() - expected));
  }
  EXPECT_GT(different, 0.01);
}

TEST_F(TinyModelVerb, InfoShowsTheDefaultsOfAFolder) {
  run("random --shape tiny --out " + path("m"));
  base::write_file_atomic(path("m/erank.json"), "{\"mode\": \"direct\", \"score\": \"expected\"}");
  const auto info = base::parse_json(run("info --json " + path("m")), "info");
  EXPECT_EQ(info["defaults"]["mode"], "direct");
  EXPECT_EQ(info["defaults"]["score"], "expected");
  EXPECT_THAT(run("info " + path("m")), HasSubstr("mode \"direct\""));
}

TEST_F(TinyModelVerb, RefusesToReplaceAModelUnlessTold) {
  run("random --shape tiny --out " + path("m"));
  EXPECT_THAT(run("random --shape tiny --seed 2 --out " + path("m")), HasSubstr("--overwrite"));
  EXPECT_EQ(exit_code_, 2);
  EXPECT_EQ(run("random --shape tiny --seed 2 --overwrite --out " + path("m")), "");
  EXPECT_EQ(exit_code_, 0);
}

TEST_F(TinyModelVerb, MergesAnAdapterIntoAFolderOfItsOwn) {
  const std::string golden = std::string(ERANK_SOURCE_DIR) + "/tests/golden/";
  run("random --shape tiny --out " + path("m"));
  // The golden adapter belongs to another shape.
  EXPECT_THAT(run("merge --model " + path("m") + " --adapter " + golden +
                  "model_lora_adapter --out " + path("bad")),
              HasSubstr("expected [4, 64]"));
  EXPECT_EQ(exit_code_, 2);
  EXPECT_FALSE(base::folder_exists(path("bad")));
  EXPECT_THAT(run("merge --model " + path("m") + " --out " + path("bad")), HasSubstr("--adapter"));

  const auto parameters = model::load_parameters(path("m"), at::kFloat);
  const model::LoraConfig config{.rank = 4, .alpha = 8, .target_modules = {"q_proj", "down_proj"}};
  auto adapter = model::make_adapter(parameters->config(), config, 1);
  for (auto& [name, tensor] : adapter.named())
    tensor.copy_(model::golden_fill(name, tensor.sizes()));
  model::save_adapter(adapter, path("adapter"), "m", at::kFloat);
  parameters->add_adapter("test", std::move(adapter));
  const auto network = model::make_network(model::ParametersSource(*parameters),
                                           {.precision = model::Precision::kFp32});
  const at::Tensor applied = model::whole_pass(*network, {{1, 2, 3}});
  EXPECT_EQ(run("merge --dtype fp32 --model " + path("m") + " --adapter " + path("adapter") +
                " --out " + path("merged")),
            "");
  base::write_file_atomic(path("in.jsonl"), "{\"ids\": [1, 2, 3], \"positions\": [0, 1, 2]}");
  const auto merged = base::parse_json(
      run("logits --model " + path("merged") + " --in " + path("in.jsonl")), "logits");
  base::Json columns = base::Json::array();
  for (int i = 0; i < 512; ++i) columns.push_back(i);
  EXPECT_LE(model::largest_difference(applied, columns, merged["logits"]),
            1e-5 * applied.abs().max().item<double>());
  // How the model reads pairs goes with it.
  base::write_file_atomic(path("m/erank.json"), R"({"layout": "passage-last", "mode": "direct"})");
  EXPECT_EQ(run("merge --dtype fp32 --model " + path("m") + " --adapter " + path("adapter") +
                " --out " + path("direct")),
            "");
  const auto kept = base::parse_json(base::read_file(path("direct/erank.json")), "erank.json");
  EXPECT_EQ(kept["layout"], "passage-last");
  EXPECT_EQ(kept["mode"], "direct");
  EXPECT_EQ(base::read_file(path("merged/tokenizer.json")),
            base::read_file(path("m/tokenizer.json")));
  // So does the adapter's own chat template.
  base::write_file_atomic(path("adapter/chat_template.jinja"), "Own: {{ messages[0].content }} !");
  EXPECT_EQ(
      run("merge --model " + path("m") + " --adapter " + path("adapter") + " --out " + path("own")),
      "");
  const auto info = base::parse_json(run("info --json " + path("own")), "info");
  EXPECT_EQ(info["template"]["prefix"], "Own: ");
  EXPECT_EQ(info["template"]["suffix"], " !");
}

TEST_F(TinyModelVerb, MergesNothingThatIsNotFinite) {
  run("random --shape tiny --out " + path("m"));
  const auto parameters = model::load_parameters(path("m"), at::kFloat);
  auto adapter =
      model::make_adapter(parameters->config(), {.rank = 2, .target_modules = {"v_proj"}}, 1);
  for (auto& [name, tensor] : adapter.named()) tensor.fill_(1e30);  // finite, their product is not
  model::save_adapter(adapter, path("adapter"), "m", at::kFloat);
  for (const char* verb : {"merge", "quantize"}) {
    EXPECT_THAT(run(std::string(verb) + " --model " + path("m") + " --adapter " + path("adapter") +
                    " --out " + path("bad")),
                HasSubstr("v_proj.weight' has values that are not finite"));
    EXPECT_EQ(exit_code_, 2);
    EXPECT_FALSE(base::file_exists(path("bad/model.safetensors")));
  }
}

TEST_F(TinyModelVerb, InfoLooksAtTheValues) {
  run("random --shape tiny --dtype fp32 --out " + path("m"));
  EXPECT_THAT(run("info " + path("m")), HasSubstr("family"));
  EXPECT_EQ(exit_code_, 0);
  const auto parameters = model::load_parameters(path("m"), at::kFloat);
  auto named = parameters->named();
  named.back().tensor[3][5] = std::nanf("");
  model::save_tensors(path("m/model.safetensors"), named, at::kFloat);
  EXPECT_THAT(run("info " + path("m")),
              HasSubstr("'lm_head.weight' has values that are not finite"));
  EXPECT_EQ(exit_code_, 2);
}

TEST_F(TinyModelVerb, AGgufFilesBlocksAreKeptWhenAsked) {
  model::ModelConfig config = model::config_of_shape("tiny");
  config.hidden_size = 256, config.intermediate_size = 512, config.num_attention_heads = 8;
  model::write_random_gguf(path("m.gguf"), config,
                           [](const std::string&) { return data::DType::kQ4_K; });
  const auto info = base::parse_json(run("info --json " + path("m.gguf")), "info");
  ASSERT_EQ(exit_code_, 0);
  const base::Json& precisions = info["memory"]["precisions"];
  EXPECT_LT(precisions["gguf"]["weight_bytes"].get<double>(),
            0.3 * precisions["bf16"]["weight_bytes"].get<double>());
  base::write_file_atomic(path("in.jsonl"), "{\"ids\": [72, 101, 108]}\n");
  const std::string args = "logits --model " + path("m.gguf") + " --in " + path("in.jsonl");
  const std::string usual =
      model::precision_name(model::product_precision(model::Precision::kGguf));
  EXPECT_EQ(run(args + " --precision gguf"), run(args + " --precision " + usual));
  EXPECT_EQ(exit_code_, 0);
  run("random --shape tiny --out " + path("m"));
  EXPECT_THAT(run("logits --precision gguf --model " + path("m") + " --in " + path("in.jsonl")),
              HasSubstr("use --precision bf16 or int8"));
  EXPECT_EQ(exit_code_, 2);
}

TEST_F(TinyModelVerb, NamesWhatIsWrongInItsInput) {
  run("random --shape tiny --out " + path("m"));
  const std::pair<const char*, const char*> cases[] = {
      {"{\"ids\": []}", "'ids'"},
      {"{\"ids\": [512]}", "512"},
      {"{\"ids\": [1], \"positions\": [1]}", "'positions'"},
      {"{\"ids\": [1], \"rows\": [1]}", "rows"},
      {"[1]", "object"},
      {"{", ":1"}};
  for (const auto& [line, part] : cases) {
    base::write_file_atomic(path("in.jsonl"), line);
    EXPECT_THAT(run("logits --model " + path("m") + " --in " + path("in.jsonl")), HasSubstr(part));
    EXPECT_EQ(exit_code_, 2) << line;
  }
  EXPECT_THAT(run("random --shape 7b --out " + path("x")), HasSubstr("qwen3-14b"));
  EXPECT_EQ(exit_code_, 2);
  EXPECT_THAT(run("info " + path("nothing")), HasSubstr("nothing"));
  EXPECT_EQ(exit_code_, 2);
}

}  // namespace
}  // namespace erank::cli
