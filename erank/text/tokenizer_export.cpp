#include "erank/text/tokenizer_export.h"

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/text/tokenizer.h"
#include "erank/text/tokenizer_spec.h"

namespace erank::text {
namespace {

using base::OrderedJson;

// Every file of a model folder that a tokenizer may be read from.
constexpr const char* kFiles[] = {
    "tokenizer.json",    "tokenizer_config.json",   "vocab.json",         "merges.txt",
    "added_tokens.json", "special_tokens_map.json", "chat_template.jinja"};

constexpr const char* kByteTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

// The patterns that Qwen2 and Llama 3 split by; they differ in how many digits are one word.
std::string pattern_of(SplitStep::Kind kind) {
  const char* digits = kind == SplitStep::Kind::kLlama3 ? "{1,3}" : "";
  return base::str(R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N})", digits,
                   R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)");
}

OrderedJson pre_tokenizer_json(const TokenizerSpec& spec) {
  OrderedJson parts = OrderedJson::array();
  bool gpt2 = false;  // ByteLevel's own pattern; it is last
  for (const SplitStep& step : spec.steps) {
    ERANK_CHECK(!gpt2);
    switch (step.kind) {
      case SplitStep::Kind::kDigits:
        parts.push_back({{"type", "Digits"}, {"individual_digits", true}});
        break;
      case SplitStep::Kind::kQwen2:
      case SplitStep::Kind::kLlama3:
        parts.push_back({{"type", "Split"},
                         {"pattern", {{"Regex", pattern_of(step.kind)}}},
                         {"behavior", "Isolated"},
                         {"invert", false}});
        break;
      case SplitStep::Kind::kGpt2:
        gpt2 = true;
        break;
      default:  // GGUF headers name no other step
        ERANK_CHECK(false, "split step ", static_cast<int>(step.kind));
    }
  }
  parts.push_back({{"type", "ByteLevel"},
                   {"add_prefix_space", false},
                   {"trim_offsets", true},
                   {"use_regex", gpt2}});
  return {{"type", "Sequence"}, {"pretokenizers", parts}};
}

void write_spec(const TokenizerSpec& spec, const std::string& folder) {
  OrderedJson added = OrderedJson::array();
  for (const AddedToken& token : spec.added)
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", token.single_word},
                     {"lstrip", token.lstrip},
                     {"rstrip", token.rstrip},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  std::vector<bool> is_text(spec.pieces.size(), true);
  for (const int32_t id : spec.unused) is_text[static_cast<size_t>(id)] = false;
  OrderedJson vocabulary = base::Json::object();
  {
    // An unordered build: nlohmann's ordered object looks through all keys for each new one.
    OrderedJson::object_t entries;
    entries.reserve(spec.pieces.size());
    for (size_t id = 0; id < spec.pieces.size(); ++id)
      if (is_text[id] && !spec.pieces[id].empty()) entries.emplace_back(spec.pieces[id], id);
    vocabulary = OrderedJson(std::move(entries));
  }
  OrderedJson merges = OrderedJson::array();
  for (const auto& [left, right] : spec.merges) merges.push_back(OrderedJson::array({left, right}));

  OrderedJson json;
  json["version"] = "1.0";
  json["truncation"] = nullptr;
  json["padding"] = nullptr;
  json["added_tokens"] = std::move(added);
  json["normalizer"] = spec.nfc ? OrderedJson{{"type", "NFC"}} : OrderedJson(nullptr);
  json["pre_tokenizer"] = pre_tokenizer_json(spec);
  json["post_processor"] = nullptr;
  json["decoder"] = {{"type", "ByteLevel"},
                     {"add_prefix_space", true},
                     {"trim_offsets", true},
                     {"use_regex", true}};
  json["model"] = {{"type", "BPE"},
                   {"dropout", nullptr},
                   {"unk_token", nullptr},
                   {"continuing_subword_prefix", nullptr},
                   {"end_of_word_suffix", nullptr},
                   {"fuse_unk", false},
                   {"byte_fallback", false},
                   {"ignore_merges", spec.ignore_merges}};
  json["model"]["vocab"] = std::move(vocabulary);
  json["model"]["merges"] = std::move(merges);
  base::write_file_atomic(folder + "/tokenizer.json", json.dump(1) + "\n");

  OrderedJson config;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  config["add_bos_token"] = false;
  if (!spec.bos.empty()) config["bos_token"] = spec.bos;
  if (!spec.eos.empty()) config["eos_token"] = spec.eos;
  if (!spec.chat_template.empty()) config["chat_template"] = spec.chat_template;
  base::write_file_atomic(folder + "/tokenizer_config.json", config.dump(2) + "\n");
}

}  // namespace

void copy_tokenizer(const std::string& source, const std::string& folder,
                    const std::string& adapter) {
  if (!adapter.empty() && has_tokenizer(adapter)) return copy_tokenizer(adapter, folder);
  Tokenizer::load(source);  // what cannot be read is refused before anything is written
  if (source.ends_with(".gguf"))
    write_spec(spec_from_gguf(source), folder);
  else
    copy_own_tokenizer(source, folder);
  if (adapter.empty()) return;
  if (const std::string own = chat_template_of(adapter); !own.empty())
    base::write_file_atomic(folder + "/chat_template.jinja", own);
}

void copy_own_tokenizer(const std::string& adapter, const std::string& folder) {
  for (const char* name : kFiles) {
    const std::string path = adapter + "/" + name;
    if (base::file_exists(path))
      base::write_file_atomic(folder + "/" + name, base::read_file(path));
  }
}

void write_byte_tokenizer(int64_t vocab_size, const std::string& folder) {
  ERANK_CHECK(vocab_size >= kMinByteVocabulary && vocab_size <= kMaxVocabulary);
  TokenizerSpec spec;
  for (int b = 0; b < 256; ++b)
    spec.pieces.push_back(spell_bytes(std::string(1, static_cast<char>(b))));
  for (const char* content :
       {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"}) {
    const auto id = static_cast<int32_t>(spec.pieces.size());
    spec.added.push_back({.content = content, .id = id, .special = content[1] == '|'});
    spec.pieces.emplace_back(content);
  }
  for (int64_t id = kMinByteVocabulary; id < vocab_size; ++id)
    spec.pieces.push_back(base::str("~", id));
  spec.steps = {{.kind = SplitStep::Kind::kGpt2}};
  spec.bos = "<|endoftext|>";
  spec.eos = "<|im_end|>";
  spec.chat_template = kByteTemplate;
  write_spec(spec, folder);
}

}  // namespace erank::text
