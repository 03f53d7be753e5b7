#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <map>
#include <numeric>
#include <set>

#include "cli/model_memory.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/data/json_values.h"
#include "erank/model/checkpoint.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"
#include "erank/model/weights.h"
#include "erank/rank/checkpoint.h"
#include "erank/rank/model_files.h"
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
  rank::refuse_inputs(rank::model_files(folder), inputs);
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

OrderedJson describe_tokenizer(const rank::Checkpoint& found, int64_t num_rows,
                               OrderedJson& chat_template) {
  OrderedJson out;
  try {
    const auto tokenizer = text::Tokenizer::load(found.weights, found.adapter.value_or(""));
    rank::check_tokenizer(tokenizer, num_rows);
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

OrderedJson describe(const std::string& path, base::ProgressSink* progress) {
  const rank::Checkpoint found = rank::find_checkpoint(path);
  const auto source = model::CheckpointSource::open(found.weights, found.adapter.value_or(""));
  model::check_finite(source, progress);
  const model::ModelConfig& c = source.config();
  const model::Checkpoint& files = source.files();
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
  out["context"] = c.context();
  out["tied_head"] = c.tie_word_embeddings;
  out["files"] = names.size();
  out["tensors"] = files.entries().size();
  out["weight_bytes"] = bytes;
  out["dtypes"] = dtypes;
  const auto flops = static_cast<int64_t>(c.flops_per_token());
  out["flops_per_token"] = flops;
  out["flops_per_token_with_head"] = flops + 2 * c.vocab_size * c.hidden_size;
  out["kv_bytes_per_token_bf16"] = c.num_hidden_layers * 2 * c.kv_size() * 2;
  out["memory"] = describe_memory(source);
  OrderedJson chat_template;
  out["tokenizer"] = describe_tokenizer(found, c.vocab_size, chat_template);
  out["template"] = chat_template;
  if (!found.folder.empty() && base::file_exists(found.folder + "/erank.json"))
    out["defaults"] = rank::to_json(found.defaults);
  return out;
}

void print_table(const OrderedJson& info, Output& output) {
  const auto line = [&output](std::string label, const std::string& shown) {
    std::replace(label.begin(), label.end(), '_', ' ');
    label.resize(std::max<size_t>(26, label.size() + 1), ' ');
    output.write(label + shown + "\n");
  };
  for (const auto& [key, value] : info.items()) {
    if (key == "memory") {
      for (const MemoryLine& one : memory_lines(value)) line(one.label, one.text);
      continue;
    }
    std::string shown;
    if (value.is_object()) {
      for (const auto& [name, part] : value.items())
        shown += (shown.empty() ? "" : ", ") + name + " " + base::dump_json(part);
    } else {
      shown = value.is_string() ? value.get<std::string>() : base::dump_json(value);
    }
    line(key, shown);
  }
}

void run_info(const InfoFlags& flags, base::ProgressSink* progress) {
  const OrderedJson info = describe(flags.model, progress);
  Output output("", false, rank::paths_of_model(flags.model));
  if (flags.json)
    output.write(base::dump_json(info) + "\n");
  else
    print_table(info, output);
  output.commit();
}

struct LogitsFlags {
  std::string model, in = "-", out, precision = "fp32";
  bool overwrite = false;
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

// The logits after each of `rows` (ascending positions), [rows.size(), V]: one pass over all ids.
std::vector<float> logits_of(model::Network& network, const std::vector<int32_t>& ids,
                             const std::vector<int32_t>& rows) {
  const int64_t vocab_size = network.config().vocab_size;
  model::Batch batch;
  batch.tokens = ids;
  batch.rows = rows;
  const auto length = static_cast<int32_t>(ids.size());
  batch.positions.resize(ids.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.starts = {0, length};
  batch.pages.resize(static_cast<size_t>((length + model::kPageTokens - 1) / model::kPageTokens));
  std::iota(batch.pages.begin(), batch.pages.end(), 0);
  batch.page_starts = {0, static_cast<int32_t>(batch.pages.size())};
  const auto cache = network.make_cache(std::ssize(batch.pages));
  network.forward(batch, *cache);
  std::vector<float> logits(rows.size() * static_cast<size_t>(vocab_size));
  std::vector<model::RowRequest> requests(rows.size());
  std::vector<model::RowResult> results(rows.size());
  for (size_t r = 0; r < rows.size(); ++r)
    requests[r].logits = logits.data() + r * static_cast<size_t>(vocab_size);
  network.read_rows(0, requests, results);
  return logits;
}

void run_logits(const LogitsFlags& flags, base::ProgressSink* progress) {
  const rank::Checkpoint found = rank::find_checkpoint(flags.model);
  const auto network =
      model::make_network(model::CheckpointSource::open(found.weights, found.adapter.value_or("")),
                          {.precision = model::precision_named(flags.precision)}, progress);
  const model::ModelConfig& config = network->config();
  std::vector<std::string> inputs = rank::paths_of_model(flags.model);
  inputs.push_back(flags.in);
  Output output(flags.out, flags.overwrite, inputs);
  data::ByteSource source(flags.in);
  data::for_each_json(source, nullptr, [&](const data::JsonValue& value) {
    const std::string where = value.place.str();
    const base::Json& json = data::object_of(value);
    base::refuse_unknown_keys(json, {"ids", "positions"}, where);
    const auto ids = read_numbers(json, "ids", config.vocab_size, where);
    const auto length = static_cast<int64_t>(ids.size());
    if (length > config.context())
      base::fail(ErrorKind::kInvalidInput, "logits", where, ": ", length,
                 " ids, the model's context is ", config.context());
    std::vector<int32_t> asked = {static_cast<int32_t>(length - 1)};
    if (json.contains("positions")) asked = read_numbers(json, "positions", length, where);
    std::vector<int32_t> rows = asked;
    std::sort(rows.begin(), rows.end());
    rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
    const std::vector<float> logits = logits_of(*network, ids, rows);
    std::string text = "{\"logits\":[";
    for (const int32_t position : asked) {
      const auto row = std::lower_bound(rows.begin(), rows.end(), position) - rows.begin();
      if (text.back() != '[') text += ",";
      append_row(text, logits.data() + row * config.vocab_size, config.vocab_size);
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

void write_tokenizer_of(const rank::Checkpoint& found, const std::string& adapter,
                        const std::string& folder) {
  try {
    text::copy_tokenizer(found.weights, folder, adapter);
  } catch (const base::Error& e) {
    warn(base::str("no tokenizer written: ", e.what()));
  }
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
  std::vector<std::string> inputs = rank::paths_of_model(flags.model);
  inputs.push_back(adapter);
  check_out_folder(flags.out, flags.overwrite, inputs);
  // The adapter is added as the tensors are read.
  const auto source = model::CheckpointSource::open(found.weights, adapter);
  model::Parameters parameters(source.config(), dtype_of(flags.dtype));
  model::load_weights(parameters, source, progress);
  model::save_weights(parameters, flags.out, model::kMaxShardBytes, progress);
  write_tokenizer_of(found, adapter, flags.out);
  rank::write_checkpoint(flags.out, found.defaults, nullptr);
}

struct QuantizeFlags {
  std::string model, adapter, out;
  bool overwrite = false;
};

void run_quantize(const QuantizeFlags& flags, base::ProgressSink* progress) {
  const rank::Checkpoint found = rank::find_checkpoint(flags.model);
  const std::string adapter = !flags.adapter.empty() ? flags.adapter : found.adapter.value_or("");
  std::vector<std::string> inputs = rank::paths_of_model(flags.model);
  if (!adapter.empty()) inputs.push_back(adapter);
  check_out_folder(flags.out, flags.overwrite, inputs);
  model::save_int8_weights(model::CheckpointSource::open(found.weights, adapter), flags.out,
                           model::kMaxShardBytes, progress);
  write_tokenizer_of(found, adapter, flags.out);
  rank::write_checkpoint(flags.out, found.defaults, nullptr);
}

CLI::Option* add_dtype(CLI::App* verb, const char* name, std::string& value, const char* text) {
  return verb->add_option(name, value, text)
      ->check(CLI::IsMember({"bf16", "fp32"}))
      ->capture_default_str();
}

void add_info(CLI::App& model, Context& context) {
  auto* verb = model.add_subcommand("info", "Family, size and cost per token of a model");
  auto flags = std::make_shared<InfoFlags>();
  verb->footer("Example:\n  erank model info ~/models/ERank-4B");
  verb->add_option("model", flags->model,
                   "Hugging Face folder, .gguf file or adapter folder (default: erank-135m)");
  verb->add_flag("--json", flags->json, "one JSON object");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_info(*flags, context.progress.get()); };
  });
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
  verb->add_option("--precision", flags->precision,
                   "precision of the matrix products: fp32 is exact, bf16, int8 and gguf (the "
                   "file's blocks) are for serving")
      ->check(CLI::IsMember({"bf16", "int8", "fp32", "gguf"}))
      ->capture_default_str();
  add_deterministic(*verb);
  verb->add_option("--in", flags->in, "JSON lines; - is stdin")->capture_default_str();
  verb->add_option("--out", flags->out, "write here instead of stdout");
  verb->add_flag("--overwrite", flags->overwrite, "replace an existing --out");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_logits(*flags, context.progress.get()); };
  });
}

void add_random(CLI::App& model, Context& context) {
  auto* verb = model.add_subcommand(
      "random", "Write a model folder of random weights, for tests and benchmarks");
  auto flags = std::make_shared<RandomFlags>();
  verb->footer("Example:\n  erank model random --shape tiny --out /tmp/tiny");
  verb->add_option("--shape", flags->shape,
                   "tiny, smollm2-135m, qwen3-0.6b, qwen3-4b, qwen3-14b or qwen3-32b")
      ->required();
  verb->add_option("--out", flags->out, "folder to write")->required();
  verb->add_option("--tokenizer", flags->tokenizer,
                   "folder or .gguf whose tokenizer and chat template it gets (default: bytes)");
  verb->add_option("--seed", flags->seed, "random seed; equal seeds give equal files")
      ->capture_default_str();
  add_dtype(verb, "--dtype", flags->dtype, "data type of the weights");
  verb->add_flag("--overwrite", flags->overwrite, "replace the model in --out");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_random(*flags, context.progress.get()); };
  });
}

void add_merge(CLI::App& model, Context& context) {
  auto* verb = model.add_subcommand(
      "merge", "Merge a LoRA adapter into the weights and write a model folder");
  auto flags = std::make_shared<MergeFlags>();
  verb->footer(
      "Example:\n  erank model merge --model ~/models/Qwen3-4B --adapter run1/adapter --out "
      "merged");
  verb->add_option("--model", flags->model,
                   "Hugging Face folder, .gguf file or adapter folder (default: erank-135m)");
  verb->add_option("--adapter", flags->adapter, "PEFT folder (default: the model's own)");
  verb->add_option("--out", flags->out, "folder to write")->required();
  add_dtype(verb, "--dtype", flags->dtype, "data type of the merged weights");
  verb->add_flag("--overwrite", flags->overwrite, "replace the model in --out");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_merge(*flags, context.progress.get()); };
  });
}

void add_quantize(CLI::App& model, Context& context) {
  auto* verb = model.add_subcommand(
      "quantize",
      "Write a model folder with int8 weights, half the size of bf16, for --precision int8");
  auto flags = std::make_shared<QuantizeFlags>();
  verb->footer(
      "Example:\n  erank model quantize --model ~/models/ERank-4B --out ERank-4B-int8\n\n"
      "Each output of a matrix has one scale; an adapter is merged first; embedding, head and "
      "norms\n"
      "stay bf16. config.json names the compressed-tensors format, which other programs read too.");
  verb->add_option("--model", flags->model,
                   "Hugging Face folder, .gguf file or adapter folder (default: erank-135m)");
  verb->add_option("--adapter", flags->adapter, "PEFT folder (default: the model's own)");
  verb->add_option("--out", flags->out, "folder to write")->required();
  verb->add_flag("--overwrite", flags->overwrite, "replace the model in --out");
  verb->callback([flags, &context] {
    context.run = [flags, &context] { run_quantize(*flags, context.progress.get()); };
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
  add_quantize(*model, context);
}

}  // namespace erank::cli
