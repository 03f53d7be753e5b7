#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "cli/digest.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/data/records.h"
#include "erank/model/checkpoint.h"
#include "erank/model/lora.h"
#include "erank/model/weights.h"
#include "erank/rank/checkpoint.h"
#include "erank/text/prompt_format.h"
#include "erank/text/tokenizer_export.h"

namespace erank::cli {
namespace {

using base::ErrorKind;
using base::OrderedJson;

// A verb that writes a model folder asks here first.
void check_out_folder(const std::string& folder, bool overwrite,
                      const std::vector<std::string>& inputs) {
  std::error_code error;
  if (!std::filesystem::exists(folder, error)) return;
  if (!std::filesystem::is_directory(folder, error))
    base::fail(ErrorKind::kInvalidInput, "--out", folder, " is a file, expected a folder");
  refuse_inputs(model_files(folder), inputs);
  if (!overwrite && !std::filesystem::is_empty(folder, error))
    base::fail(ErrorKind::kInvalidInput, "--out", folder,
               " is not an empty folder; give another name or --overwrite");
}

at::ScalarType dtype_of(const std::string& name) {
  return name == "fp32" ? at::kFloat : at::kBFloat16;
}

struct InfoFlags {
  std::string model;
  bool json = false;
};

OrderedJson describe_tokenizer(const std::string& path, OrderedJson& chat_template) {
  OrderedJson out;
  try {
    const auto tokenizer = text::Tokenizer::load(path);
    out["kind"] = "byte-level BPE";
    out["vocab_size"] = tokenizer.vocab_size();
    out["bos"] = tokenizer.bos_token();
    out["eos"] = tokenizer.eos_token();
    try {
      const text::PromptFormat format(tokenizer, {});
      chat_template["prefix"] = format.prefix();
      chat_template["suffix"] = format.suffix();
      chat_template["stop_ids"] = format.stop_ids();
    } catch (const base::Error& e) {
      chat_template["refused"] = e.what();
    }
  } catch (const base::Error& e) {
    out["refused"] = e.what();
  }
  return out;
}

OrderedJson describe(const std::string& path) {
  const rank::Checkpoint found = rank::find_checkpoint(path);
  const model::ModelConfig c = model::load_config(found.weights);
  const model::Checkpoint files = model::Checkpoint::open(found.weights);
  std::map<std::string, int64_t> dtypes;
  std::set<std::string> names;
  int64_t bytes = 0;
  for (const auto& entry : files.entries()) {
    ++dtypes[data::dtype_name(entry.info->dtype)];
    names.insert(entry.file);
    bytes += static_cast<int64_t>(entry.info->end - entry.info->begin);
  }
  OrderedJson out;
  out["model"] = found.weights;
  if (found.adapter) out["adapter"] = *found.adapter;
  out["family"] = model::family_name(c.family);
  out["parameters"] = c.num_parameters();
  out["layers"] = c.num_hidden_layers;
  out["hidden_size"] = c.hidden_size;
  out["intermediate_size"] = c.intermediate_size;
  out["query_heads"] = c.num_attention_heads;
  out["kv_heads"] = c.num_key_value_heads;
  out["head_dim"] = c.head_dim;
  out["vocab_size"] = c.vocab_size;
  out["context"] = c.max_position_embeddings;
  out["tied_head"] = c.tie_word_embeddings;
  out["files"] = names.size();
  out["tensors"] = files.entries().size();
  out["weight_bytes"] = bytes;
  out["dtypes"] = dtypes;
  out["flops_per_token"] = c.flops_per_token();
  out["flops_per_token_with_head"] =
      c.flops_per_token() + 2.0 * static_cast<double>(c.vocab_size * c.hidden_size);
  out["kv_bytes_per_token_bf16"] =
      model::KvCache::page_bytes(c, at::kBFloat16) / model::KvCache::kPageTokens;
  OrderedJson chat_template;
  out["tokenizer"] = describe_tokenizer(found.weights, chat_template);
  out["template"] = chat_template;
  return out;
}

void print_table(const OrderedJson& info, Output& output) {
  for (const auto& [key, value] : info.items()) {
    std::string shown;
    if (value.is_object()) {
      for (const auto& [name, part] : value.items())
        shown += (shown.empty() ? "" : ", ") + name + " " + base::dump_json(part);
    } else {
      shown = value.is_string() ? value.get<std::string>() : base::dump_json(value);
    }
    std::string label = key;
    std::replace(label.begin(), label.end(), '_', ' ');
    label.resize(std::max<size_t>(26, label.size() + 1), ' ');
    output.write(label + shown + "\n");
  }
}

void run_info(const InfoFlags& flags) {
  const OrderedJson info = describe(flags.model);
  Output output("", false);
  if (flags.json)
    output.write(base::dump_json(info) + "\n");
  else
    print_table(info, output);
  output.commit();
}

struct LogitsFlags {
  std::string model, in = "-", out, precision = "fp32";
  bool deterministic = false, overwrite = false;
};

std::vector<int32_t> read_numbers(const base::Json& json, const char* key, int64_t end,
                                  const std::string& where) {
  if (!json.contains(key) || !json[key].is_array() || json[key].empty())
    base::fail(ErrorKind::kInvalidInput, "logits", where, ": '", key,
               "' is missing, expected a list of numbers that is not empty");
  std::vector<int32_t> numbers;
  for (const auto& value : json[key]) {
    if (!value.is_number_integer() || value < 0 || value >= end)
      base::fail(ErrorKind::kInvalidInput, "logits", where, ": '", key, "' holds ",
                 base::dump_json(value), ", expected whole numbers from 0 to ", end - 1);
    numbers.push_back(value.get<int32_t>());
  }
  return numbers;
}

// Appends a row as JSON, each number as the shortest text that reads back as the same float.
void append_row(std::string& out, const float* values, int64_t n) {
  char text[32];
  for (int64_t i = 0; i < n; ++i) {
    out += i ? "," : "[";
    if (std::isfinite(values[i]))
      out.append(text, std::to_chars(text, text + sizeof text, values[i]).ptr);
    else
      out += "null";
  }
  out += "]";
}

void run_logits(const LogitsFlags& flags, base::ProgressSink* progress) {
  const rank::Checkpoint found = rank::find_checkpoint(flags.model);
  const auto decoder = model::load_decoder(
      found.weights, {.dtype = dtype_of(flags.precision), .deterministic = flags.deterministic},
      progress);
  if (found.adapter) model::load_lora(*decoder, *found.adapter);
  const model::ModelConfig& config = decoder->config();
  const at::NoGradGuard no_grad;
  std::vector<std::string> inputs = paths_of_model(flags.model);
  inputs.push_back(flags.in);
  Output output(flags.out, flags.overwrite, inputs);
  data::for_each_line(flags.in, [&](std::string_view line, int64_t number) {
    if (line.empty()) return;
    const std::string where = base::str(flags.in == "-" ? "stdin" : flags.in, ":", number);
    const base::Json json = base::parse_json(line, where);
    if (!json.is_object())
      base::fail(ErrorKind::kInvalidInput, "logits", where, ": expected an object");
    base::refuse_unknown_keys(json, {"ids", "positions"}, where);
    model::Batch batch;
    batch.tokens = read_numbers(json, "ids", config.vocab_size, where);
    const auto length = static_cast<int64_t>(batch.tokens.size());
    if (length > config.max_position_embeddings)
      base::fail(ErrorKind::kInvalidInput, "logits", where, ": ", length,
                 " ids, the model's context is ", config.max_position_embeddings);
    for (int32_t i = 0; i < length; ++i) batch.positions.push_back(i);
    batch.starts = {0, static_cast<int32_t>(length)};
    std::vector<int32_t> asked = {static_cast<int32_t>(length - 1)};
    if (json.contains("positions")) asked = read_numbers(json, "positions", length, where);
    batch.rows = asked;
    std::sort(batch.rows.begin(), batch.rows.end());
    batch.rows.erase(std::unique(batch.rows.begin(), batch.rows.end()), batch.rows.end());
    const at::Tensor logits = decoder->forward(batch, nullptr).contiguous();  // [R, V] fp32
    std::string text = "{\"logits\":[";
    for (const int32_t position : asked) {
      const auto row = std::lower_bound(batch.rows.begin(), batch.rows.end(), position);
      if (text.back() != '[') text += ",";
      append_row(text,
                 logits.const_data_ptr<float>() + (row - batch.rows.begin()) * config.vocab_size,
                 config.vocab_size);
    }
    output.write(text + "]}\n");
  });
  output.commit();
}

struct RandomFlags {
  std::string shape, out, tokenizer, dtype = "bf16";
  uint64_t seed = 1;
  bool overwrite = false;
};

void run_random(const RandomFlags& flags, base::ProgressSink* progress) {
  model::ModelConfig config = model::config_of_shape(flags.shape);
  std::string source = flags.tokenizer;
  if (!source.empty()) {
    const auto tokenizer = text::Tokenizer::load(source);
    const int64_t size = tokenizer.vocab_size();
    config.vocab_size = flags.shape == "tiny" ? size : std::max(size, config.vocab_size);
    config.eos_token_ids.clear();
    if (const auto eos = tokenizer.eos_id()) config.eos_token_ids = {*eos};
    config.bos_token_id = tokenizer.bos_id().value_or(-1);
  } else {
    config.eos_token_ids = {258, 256};
    config.bos_token_id = 256;
  }
  check_out_folder(flags.out, flags.overwrite, {source});
  model::write_random_weights(config, flags.seed, dtype_of(flags.dtype), flags.out,
                              model::kMaxShardBytes, progress);
  if (source.empty())
    text::write_byte_tokenizer(config.vocab_size, flags.out);
  else
    text::copy_tokenizer(source, flags.out);
}

struct MergeFlags {
  std::string model, adapter, out, dtype = "bf16";
  bool overwrite = false;
};

void run_merge(const MergeFlags& flags, base::ProgressSink* progress) {
  const rank::Checkpoint found = rank::find_checkpoint(flags.model);
  const std::string adapter = !flags.adapter.empty() ? flags.adapter : found.adapter.value_or("");
  if (adapter.empty())
    base::fail(ErrorKind::kInvalidInput, "merge",
               "no adapter: give --adapter DIR, or an adapter "
               "folder as --model");
  std::vector<std::string> inputs = paths_of_model(flags.model);
  inputs.push_back(adapter);
  check_out_folder(flags.out, flags.overwrite, inputs);
  const auto decoder =
      model::load_decoder(found.weights, {.dtype = dtype_of(flags.dtype)}, progress);
  model::load_lora(*decoder, adapter);
  model::merge_lora(*decoder);
  model::save_weights(*decoder, flags.out, model::kMaxShardBytes, progress);
  try {
    text::copy_tokenizer(found.weights, flags.out);
  } catch (const base::Error& e) {
    warn(base::str("no tokenizer written: ", e.what()));
  }
}

CLI::Option* add_dtype(CLI::App* verb, const char* name, std::string& value, const char* text) {
  return verb->add_option(name, value, text)
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
}

void add_info(CLI::App& model, Context& context) {
  auto* verb =
      model.add_subcommand("info", "What a model is, how large, and what it costs a token");
  auto flags = std::make_shared<InfoFlags>();
  verb->footer("Example:\n  erank model info ~/models/ERank-4B");
  verb->add_option("model", flags->model,
                   "Hugging Face folder, .gguf file or adapter folder (default: erank-135m)");
  verb->add_flag("--json", flags->json, "one JSON object");
  verb->callback([flags, &context] { context.run = [flags] { run_info(*flags); }; });
}

void add_logits(CLI::App& model, Context& context) {
  auto* verb = model.add_subcommand(
      "logits",
      "JSON lines {\"ids\", \"positions\"?} to {\"logits\": [[...]]}, last position by default");
  auto flags = std::make_shared<LogitsFlags>();
  verb->footer(
      "Example:\n  echo '{\"ids\": [9906, 1917]}' | erank model logits --model ~/models/ERank-4B");
  verb->add_option("--model", flags->model,
                   "Hugging Face folder, .gguf file or adapter folder (default: erank-135m)");
  add_dtype(verb, "--precision", flags->precision, "fp32 is exact, bf16 is what serving uses");
  verb->add_flag("--deterministic", flags->deterministic, "the kernels of --deterministic serving");
  verb->add_option("--in", flags->in, "JSON lines; - is stdin")->capture_default_str();
  verb->add_option("--out", flags->out, "write here instead of stdout");
  verb->add_flag("--overwrite", flags->overwrite, "replace an existing --out");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_logits(*flags, context.progress.get()); };
  });
}

void add_random(CLI::App& model, Context& context) {
  auto* verb =
      model.add_subcommand("random", "A model folder of random weights, for tests and benchmarks");
  auto flags = std::make_shared<RandomFlags>();
  verb->footer("Example:\n  erank model random --shape tiny --out /tmp/tiny");
  verb->add_option("--shape", flags->shape,
                   "tiny, smollm2-135m, qwen3-0.6b, qwen3-4b, qwen3-14b or qwen3-32b")
      ->required();
  verb->add_option("--out", flags->out, "folder to write")->required();
  verb->add_option("--tokenizer", flags->tokenizer,
                   "folder or .gguf whose tokenizer and chat template it gets (default: bytes)");
  verb->add_option("--seed", flags->seed, "equal seeds give equal files")->capture_default_str();
  add_dtype(verb, "--dtype", flags->dtype, "of the weights");
  verb->add_flag("--overwrite", flags->overwrite, "replace the model in --out");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_random(*flags, context.progress.get()); };
  });
}

void add_merge(CLI::App& model, Context& context) {
  auto* verb =
      model.add_subcommand("merge", "A LoRA adapter added into the weights, as a model folder");
  auto flags = std::make_shared<MergeFlags>();
  verb->footer(
      "Example:\n  erank model merge --model ~/models/Qwen3-4B --adapter run1/adapter --out "
      "merged");
  verb->add_option("--model", flags->model,
                   "Hugging Face folder, .gguf file or adapter folder (default: erank-135m)");
  verb->add_option("--adapter", flags->adapter, "PEFT folder (default: the model's own)");
  verb->add_option("--out", flags->out, "folder to write")->required();
  add_dtype(verb, "--dtype", flags->dtype, "of the merged weights");
  verb->add_flag("--overwrite", flags->overwrite, "replace the model in --out");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_merge(*flags, context.progress.get()); };
  });
}

}  // namespace

void add_model(CLI::App& app, Context& context) {
  auto* model = app.add_subcommand("model", "Look at, make and convert model folders");
  model->require_subcommand(1);
  add_info(*model, context);
  add_logits(*model, context);
  add_random(*model, context);
  add_merge(*model, context);
}

}  // namespace erank::cli
