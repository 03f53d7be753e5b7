#include "erank/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/error.h"
#include "erank/model/checkpoint.h"
#include "tests/gguf_bytes.h"
#include "tests/model/golden.h"
#include "tests/shared_data.h"
#include "tests/test_folder.h"

namespace erank::model {
namespace {

using base::Json;
using ::testing::HasSubstr;

Json qwen3() {
  return Json::parse(R"({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 2, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 1000, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "rope_theta": 1000000, "tie_word_embeddings": true, "hidden_act": "silu",
    "eos_token_id": [5, 6], "bos_token_id": 4})");
}

Json of_family(const char* architecture, const char* model_type) {
  Json json = qwen3();
  json["architectures"][0] = architecture;
  json["model_type"] = model_type;
  return json;
}

Json with(Json json, const char* key, const char* value) {
  json[key] = Json::parse(value);
  return json;
}

// The message of the error that reading `json` gives, or "" when it is read.
std::string fault(const Json& json) {
  try {
    ModelConfig::from_json(json, "config.json");
    return "";
  } catch (const base::Error& e) {
    EXPECT_EQ(e.kind(), base::ErrorKind::kInvalidInput);
    return e.what();
  }
}

TEST(ModelConfig, ReadsEveryFieldOfAQwen3Config) {
  const ModelConfig c = ModelConfig::from_json(qwen3(), "config.json");
  EXPECT_EQ(c.family, Family::kQwen3);
  EXPECT_EQ(c.hidden_size, 1024);
  EXPECT_EQ(c.intermediate_size, 3072);
  EXPECT_EQ(c.num_hidden_layers, 2);
  EXPECT_EQ(c.q_size(), 2048);
  EXPECT_EQ(c.kv_size(), 1024);
  EXPECT_EQ(c.vocab_size, 1000);
  EXPECT_EQ(c.max_position_embeddings, 64);
  EXPECT_EQ(c.rope_theta, 1e6);
  EXPECT_EQ(c.rms_norm_eps, 1e-6);
  EXPECT_TRUE(c.tie_word_embeddings);
  EXPECT_TRUE(c.qk_norm);
  EXPECT_FALSE(c.qkv_bias);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int32_t>{5, 6}));
  EXPECT_EQ(c.bos_token_id, 4);
}

TEST(ModelConfig, ReadsWhatTransformers5Writes) {
  const Json all = read_golden("model_families.json");
  for (const auto& [name, golden] : all.items()) {
    const ModelConfig c = ModelConfig::from_json(golden["config"], name);
    EXPECT_EQ(c.rope_theta, golden["config"]["rope_parameters"]["rope_theta"].get<double>())
        << name;
    EXPECT_EQ(c.qk_norm, name.starts_with("qwen3")) << name;
  }
}

TEST(ModelConfig, TakesDocumentedDerivationsForMissingKeys) {
  Json llama = of_family("LlamaForCausalLM", "llama");
  for (const char* key : {"num_key_value_heads", "head_dim", "rope_theta", "tie_word_embeddings",
                          "hidden_act", "eos_token_id", "bos_token_id", "model_type"})
    llama.erase(key);
  const ModelConfig c = ModelConfig::from_json(llama, "config.json");
  EXPECT_EQ(c.num_key_value_heads, 16);
  EXPECT_EQ(c.head_dim, 64);
  EXPECT_EQ(c.rope_theta, 10000);
  EXPECT_FALSE(c.tie_word_embeddings);
  EXPECT_FALSE(c.qkv_bias);
  EXPECT_EQ(c.bos_token_id, -1);

  Json qwen2 = of_family("Qwen2ForCausalLM", "qwen2");
  qwen2.erase("head_dim");
  EXPECT_EQ(ModelConfig::from_json(qwen2, "").head_dim, 64);
  EXPECT_TRUE(ModelConfig::from_json(qwen2, "").qkv_bias);
  EXPECT_FALSE(ModelConfig::from_json(qwen2, "").o_bias);
  Json no_head_dim = qwen3();
  no_head_dim.erase("head_dim");
  EXPECT_EQ(ModelConfig::from_json(no_head_dim, "").head_dim, 128);
}

TEST(ModelConfig, NamesAMissingKeyWithoutADerivation) {
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "num_key_value_heads", "vocab_size",
                          "max_position_embeddings", "rms_norm_eps", "rope_theta"}) {
    Json json = qwen3();
    json.erase(key);
    EXPECT_THAT(fault(json), HasSubstr(key));
  }
}

TEST(ModelConfig, RefusesOtherArchitecturesByName) {
  EXPECT_THAT(fault(of_family("MistralForCausalLM", "mistral")), HasSubstr("MistralForCausalLM"));
  EXPECT_THAT(fault(of_family("Qwen3ForSequenceClassification", "qwen3")),
              HasSubstr("Qwen3ForSequenceClassification"));
  EXPECT_THAT(fault(of_family("Qwen3ForCausalLM", "llama")), HasSubstr("different families"));
  Json nameless = qwen3();
  nameless.erase("architectures");
  EXPECT_EQ(fault(nameless), "");
  nameless.erase("model_type");
  EXPECT_THAT(fault(nameless), HasSubstr("model_type"));
  EXPECT_THAT(fault(Json::array()), HasSubstr("object"));
}

TEST(ModelConfig, RefusesKeysThatChangeTheMathsByName) {
  const std::pair<const char*, const char*> cases[] = {
      {"quantization_config", R"({"quant_method": "awq"})"},
      {"quantization", R"({"bits": 4})"},
      {"rope_scaling", R"({"rope_type": "mrope", "factor": 4.0})"},
      {"rope_scaling", R"({"rope_type": "yarn"})"},
      {"rope_scaling", R"({"factor": 4.0})"},
      {"rope_scaling", R"({"type": "linear", "factor": 0})"},
      {"rope_scaling", R"({"type": "linear", "factor": 2, "mrope_section": [1, 2]})"},
      {"rope_scaling", R"({"full_attention": {"rope_type": "default"}})"},
      {"rope_scaling", R"({"rope_type": "default", "partial_rotary_factor": 0.5})"},
      {"rope_scaling", R"({"rope_type": "yarn", "factor": 4, "truncate": null})"},
      {"rope_scaling", R"({"rope_type": "yarn", "factor": 4, "beta_fast": 0.5})"},
      {"rope_scaling", R"({"rope_type": "yarn", "factor": 4,
                           "original_max_position_embeddings": 0})"},
      {"rope_scaling", R"({"rope_type": "longrope", "short_factor": [1], "long_factor": [1]})"},
      {"rope_parameters", R"({"rope_type": "llama3", "rope_theta": 1000000})"},
      {"rope_parameters", R"({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                              "high_freq_factor": 4})"},
      {"pruned_heads", R"({"0": [1]})"},
      {"per_layer_config", R"({"0": {"head_dim": 64}})"},
      {"hidden_act", R"("gelu")"},
      {"mlp_bias", "true"},
      {"partial_rotary_factor", "0.5"},
      {"attention_multiplier", "0.1"},
      {"logits_scaling", "8"},
      {"layer_types", R"(["full_attention", "sliding_attention"])"},
      {"layer_types", R"(["full_attention"])"},
      {"some_new_key", "1"},
      {"hidden_size", "\"1024\""},
      {"hidden_size", "0"},
      {"hidden_size", "9223372036854775807"},
      {"num_hidden_layers", "-1"},
      {"num_key_value_heads", "3"},
      {"head_dim", "7"},
      {"rms_norm_eps", "0"},
      {"rope_theta", "-1"},
      {"eos_token_id", "\"x\""},
      {"tie_word_embeddings", "1"}};
  for (const auto& [key, value] : cases) {
    const std::string message = fault(with(qwen3(), key, value));
    EXPECT_NE(message, "") << key << " = " << value;
    const bool by_words = std::string(key) == "num_key_value_heads";
    EXPECT_THAT(message, HasSubstr(by_words ? "heads" : key));
  }
  Json llama = of_family("LlamaForCausalLM", "llama");
  llama["sliding_window"] = 32;
  EXPECT_THAT(fault(llama), HasSubstr("\"sliding_window\" is 32"));
  EXPECT_THAT(fault(with(qwen3(), "some_new_key", "[17]")), HasSubstr("[17]"));
}

// Transformers' rules of precedence were read off its 5.24: a config of both kinds was loaded.
TEST(ModelConfig, SaysWhichOfTwoContradictoryKeysTransformersTakes) {
  EXPECT_THAT(
      fault(with(qwen3(), "rope_parameters", R"({"rope_theta": 5, "rope_type": "default"})")),
      HasSubstr("\"rope_theta\" is 1000000.0; transformers takes "
                "\"rope_parameters.rope_theta\""));
  Json both = with(qwen3(), "rope_scaling", R"({"rope_type": "linear", "factor": 2})");
  both["rope_parameters"] = both["rope_scaling"];
  EXPECT_EQ(fault(both), "");
  both["rope_parameters"]["factor"] = 4;
  EXPECT_THAT(fault(both), HasSubstr("transformers takes \"rope_scaling\""));
  EXPECT_THAT(fault(with(qwen3(), "rope_scaling",
                         R"({"rope_type": "linear", "type": "yarn", "factor": 2})")),
              HasSubstr("transformers takes \"rope_scaling.rope_type\""));
  Json original = with(qwen3(), "rope_scaling", R"({"rope_type": "yarn", "factor": 2,
      "original_max_position_embeddings": 32})");
  original["original_max_position_embeddings"] = 16;
  EXPECT_THAT(fault(original), HasSubstr("is 32; transformers takes "
                                         "\"original_max_position_embeddings\""));
  original["rope_scaling"].erase("original_max_position_embeddings");
  EXPECT_EQ(ModelConfig::from_json(original, "").rope_scaling.original_max_position_embeddings, 16);
  original.erase("original_max_position_embeddings");
  EXPECT_EQ(ModelConfig::from_json(original, "").rope_scaling.original_max_position_embeddings, 64);
  // Kinds that do not use a key ignore it, as transformers does.
  EXPECT_EQ(fault(with(qwen3(), "rope_scaling",
                       R"({"rope_type": "linear", "factor": 2, "beta_fast": 32})")),
            "");
}

TEST(ModelConfig, SlidingLayersAreThoseThatTransformersNames) {
  Json json = with(qwen3(), "use_sliding_window", "true");
  EXPECT_TRUE(ModelConfig::from_json(json, "").sliding_layers.empty());  // 28 layers are full
  json["max_window_layers"] = 1;
  EXPECT_EQ(ModelConfig::from_json(json, "").sliding_window, 0);  // 4096: as long as every text
  json["sliding_window"] = 16;
  const ModelConfig c = ModelConfig::from_json(json, "");
  EXPECT_EQ(c.window_of(0), 0);
  EXPECT_EQ(c.window_of(1), 16);
  json["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_EQ(ModelConfig::from_json(json, "").window_of(0), 16);
  EXPECT_EQ(ModelConfig::from_json(json, "").window_of(1), 0);
  json["layer_types"] = {"chunked_attention", "full_attention"};
  EXPECT_THAT(fault(json), HasSubstr("chunked_attention"));
  json["layer_types"] = {"sliding_attention", "full_attention"};
  json["use_sliding_window"] = false;
  EXPECT_THAT(fault(json), HasSubstr("\"use_sliding_window\": true"));
  json["layer_types"] = nullptr;
  EXPECT_EQ(ModelConfig::from_json(json, "").sliding_window, 0);
  json["use_sliding_window"] = true;
  json["sliding_window"] = -5;
  EXPECT_THAT(fault(json), HasSubstr("\"sliding_window\" is -5"));
}

TEST(ModelConfig, AcceptsKeysThatChangeNothing) {
  Json json = qwen3();
  json["torch_dtype"] = "bfloat16";
  json["transformers_version"] = "4.51.0";
  json["attention_dropout"] = 0.1;
  json["use_cache"] = false;
  json["sliding_window"] = 4096;  // Qwen2 and Qwen3 use it only with use_sliding_window
  json["max_window_layers"] = 28;
  json["rope_scaling"] = nullptr;
  json["quantization_config"] = nullptr;
  json["layer_types"] = Json::array({"full_attention", "full_attention"});
  EXPECT_EQ(fault(json), "");
  // What Qwen2's class does not know it ignores: q, k and v have biases all the same.
  Json qwen2 = of_family("Qwen2ForCausalLM", "qwen2");
  qwen2["attention_bias"] = false;
  EXPECT_TRUE(ModelConfig::from_json(qwen2, "").qkv_bias);
  EXPECT_FALSE(ModelConfig::from_json(qwen2, "").o_bias);
  Json llama = of_family("LlamaForCausalLM", "llama");
  llama["sliding_window"] = 4096;  // longer than every text
  EXPECT_EQ(fault(llama), "");
}

// PreTrainedConfig().to_dict() of transformers 4.46, and what trainers add.
TEST(ModelConfig, AcceptsTheKeysOfTransformersBaseClassAndOfTrainers) {
  const char* keys = R"({"return_dict": true, "output_hidden_states": false,
    "output_attentions": false, "torchscript": false, "torch_dtype": "bfloat16",
    "use_bfloat16": false, "tf_legacy_loss": false, "pruned_heads": {},
    "tie_word_embeddings": true, "chunk_size_feed_forward": 0, "is_encoder_decoder": false,
    "is_decoder": false, "cross_attention_hidden_size": null, "add_cross_attention": false,
    "tie_encoder_decoder": false, "max_length": 20, "min_length": 0, "do_sample": false,
    "early_stopping": false, "num_beams": 1, "num_beam_groups": 1, "diversity_penalty": 0.0,
    "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0,
    "length_penalty": 1.0, "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": null, "num_return_sequences": 1, "output_scores": false,
    "return_dict_in_generate": false, "forced_bos_token_id": null, "forced_eos_token_id": null,
    "remove_invalid_values": false, "exponential_decay_length_penalty": null,
    "suppress_tokens": null, "begin_suppress_tokens": null, "finetuning_task": null,
    "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}, "num_labels": 1,
    "tokenizer_class": "Qwen2Tokenizer", "prefix": null, "pad_token_id": 0,
    "sep_token_id": null, "decoder_start_token_id": null, "task_specific_params": null,
    "problem_type": null, "_name_or_path": "x", "_attn_implementation_autoset": true,
    "_attn_implementation": "flash_attention_2", "transformers_version": "4.46.0",
    "keys_to_ignore_at_inference": ["past_key_values"], "auto_map": {"AutoModel": "x"},
    "model_max_length": 4096, "gradient_checkpointing": true, "unsloth_version": "2025.1"})";
  Json json = qwen3();
  json.update(Json::parse(keys));
  EXPECT_EQ(fault(json), "");
}

TEST(ModelConfig, RefusesAQuantisedMlxFolder) {
  const std::string folder = erank::testing::shared_data("model-fixtures/mlxd-tiny_qwen3_sharded");
  if (folder.empty()) GTEST_SKIP() << "model-fixtures/mlxd-tiny_qwen3_sharded is not there";
  try {
    ModelConfig::from_folder(folder);
    FAIL();
  } catch (const base::Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("\"quantization\""));
  }
}

TEST(ModelConfig, WrittenAndReadAgainIsTheSame) {
  for (const char* shape : {"tiny", "smollm2-135m", "qwen3-0.6b", "qwen3-32b"}) {
    const ModelConfig c = config_of_shape(shape);
    const ModelConfig again =
        ModelConfig::from_json(Json::parse(c.to_json("float32").dump()), shape);
    EXPECT_EQ(again.to_json(), c.to_json()) << shape;
    EXPECT_EQ(again.qk_norm, c.qk_norm);
    EXPECT_EQ(again.rms_norm_eps, c.rms_norm_eps);
  }
}

TEST(ModelConfig, CountsParametersAndWorkOfPublishedShapes) {
  EXPECT_EQ(config_of_shape("smollm2-135m").num_parameters(), 134515008);
  EXPECT_EQ(config_of_shape("0.6b").num_parameters(), 596049920);
  EXPECT_NEAR(config_of_shape("smollm2-135m").flops_per_token(), 0.212e9, 0.001e9);
  for (const char* shape : {"tiny", "4b", "14b"}) {
    const ModelConfig c = config_of_shape(shape);
    int64_t sum = 0;
    for (const TensorShape& t : parameter_shapes(c)) {
      int64_t n = 1;
      for (const int64_t size : t.shape) n *= size;
      sum += n;
    }
    EXPECT_EQ(c.num_parameters(), sum) << shape;
  }
  EXPECT_THROW(config_of_shape("7b"), base::Error);
}

// transformers: a factor of x is for texts of x times the original length; with yarn that key's
// value is often left as it was.
TEST(ModelConfig, YarnReadsItsFactorTimesTheOriginalLength) {
  const auto context = [](int64_t max_positions, const char* scaling) {
    Json json = with(qwen3(), "rope_scaling", scaling);
    json["max_position_embeddings"] = max_positions;
    return ModelConfig::from_json(json, "config.json").context();
  };
  const char* yarn =
      R"({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768})";
  EXPECT_EQ(context(32768, yarn), 131072);
  EXPECT_EQ(context(40960, yarn), 131072);
  EXPECT_EQ(context(131072, yarn), 131072);
  EXPECT_EQ(context(262144, yarn), 262144);
  EXPECT_EQ(context(32768, R"({"rope_type": "yarn", "factor": 2.0})"), 65536);
  EXPECT_EQ(context(65536, R"({"rope_type": "yarn", "factor": null,
                               "original_max_position_embeddings": 32768})"),
            65536);
  EXPECT_EQ(context(32768, R"({"rope_type": "yarn", "factor": 1e300})"), 1 << 24);
  EXPECT_EQ(context(32768, R"({"rope_type": "linear", "factor": 4.0})"), 32768);
  EXPECT_EQ(context(32768, R"({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                               "high_freq_factor": 4.0,
                               "original_max_position_embeddings": 32768})"),
            32768);
}

TEST(ModelConfig, NamesTransformsOfQuantisedWeights) {
  Json json = with(qwen3(), "quantization_config",
                   R"({"quant_method": "compressed-tensors", "format": "int-quantized",
                       "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int",
                           "strategy": "channel", "symmetric": true}}}, "transform_config": {}})");
  EXPECT_EQ(fault(json), "");
  json["quantization_config"]["transform_config"] = nullptr;
  EXPECT_EQ(fault(json), "");
  json["quantization_config"]["transform_config"]["config_groups"]["R1"]["type"] = "hadamard";
  EXPECT_THAT(fault(json),
              HasSubstr("\"quantization_config.transform_config\" is "
                        R"({"config_groups":{"R1":{"type":"hadamard"}}}, which changes)"));
}

TEST(ModelConfig, OfGgufNamesItsOwnKeys) {
  namespace bytes = testing::gguf_bytes;
  const auto fault = [](const char* key, uint32_t value) -> std::string {
    std::vector<std::string> keys = {
        bytes::key("general.architecture", bytes::kString, bytes::text("llama"))};
    std::map<std::string, uint32_t> sizes = {
        {"embedding_length", 64},    {"feed_forward_length", 128},   {"block_count", 2},
        {"attention.head_count", 4}, {"attention.head_count_kv", 2}, {"context_length", 256},
        {"vocab_size", 100}};
    sizes[key] = value;
    for (const auto& [name, size] : sizes)
      keys.push_back(bytes::key("llama." + name, bytes::kUint32, bytes::u32(size)));
    keys.push_back(bytes::key("llama.attention.layer_norm_rms_epsilon", bytes::kFloat32,
                              bytes::raw(value == 77 ? 2.0f : 1e-5f)));
    const TestFolder folder;
    const std::string path = folder.write("model.gguf", bytes::gguf(keys, {}, ""));
    try {
      ModelConfig::from_gguf(data::GgufFile::open(path));
      return "";
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), base::ErrorKind::kInvalidInput);
      return e.what();
    }
  };
  EXPECT_EQ(fault("block_count", 2), "");
  EXPECT_THAT(fault("embedding_length", 0), HasSubstr("\"llama.embedding_length\" is 0, expected"));
  EXPECT_THAT(fault("feed_forward_length", 0), HasSubstr("\"llama.feed_forward_length\""));
  EXPECT_THAT(fault("block_count", 100000), HasSubstr("\"llama.block_count\" is 100000"));
  EXPECT_THAT(fault("attention.head_count", 0),
              HasSubstr("\"llama.embedding_length\", 64, cannot be divided by "
                        "\"llama.attention.head_count\", 0"));
  EXPECT_THAT(fault("attention.head_count_kv", 3),
              HasSubstr("\"llama.attention.head_count\" is 4, expected a multiple of "
                        "\"llama.attention.head_count_kv\", which is 3"));
  EXPECT_THAT(fault("attention.key_length", 7), HasSubstr("\"llama.attention.key_length\" is 7"));
  EXPECT_THAT(fault("context_length", 0), HasSubstr("\"llama.context_length\" is 0"));
  EXPECT_THAT(fault("vocab_size", 0), HasSubstr("\"tokenizer.ggml.tokens\" is 0"));
  EXPECT_THAT(fault("block_count", 77),
              HasSubstr("\"llama.attention.layer_norm_rms_epsilon\" is 2"));
}

TEST(ModelConfig, OfGgufEqualsTheOneOfItsSafetensors) {
  const std::string folder = erank::testing::shared_data("model-fixtures/gguf-and-shards");
  if (folder.empty()) GTEST_SKIP() << "model-fixtures/gguf-and-shards is not there";
  const ModelConfig c =
      ModelConfig::from_gguf(data::GgufFile::open(folder + "/tiny_llama_q8.gguf"));
  const std::string path = folder + "/tiny_llama_q8_config.json";
  const ModelConfig expected =
      ModelConfig::from_json(base::parse_json(base::read_file(path), path), path);
  EXPECT_EQ(c.to_json(), expected.to_json());
}

TEST(TinyModelConfig, OfRealGgufFilesIsTheModelCards) {
  const std::string path = base::cache_folder() + "/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!base::file_exists(path)) GTEST_SKIP() << path << " is not there; tools/setup fetches it";
  EXPECT_EQ(ModelConfig::from_gguf(data::GgufFile::open(path)).to_json(),
            config_of_shape("smollm2-135m").to_json());
}

}  // namespace
}  // namespace erank::model
