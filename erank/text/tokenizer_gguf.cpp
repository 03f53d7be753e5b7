#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/data/gguf.h"
#include "erank/text/tokenizer_spec.h"

namespace erank::text {

using base::ErrorKind;
using base::fail;

namespace {

// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: tokenizer.ggml.token_type
enum GgufTokenType : int64_t { kControl = 3, kUserDefined = 4, kUnused = 5 };

void apply_pre(const std::string& pre, const std::string& where, TokenizerSpec& spec) {
  // R1's distillations of Qwen split as Qwen does.
  if (pre == "qwen2" || pre == "deepseek-r1-qwen") {
    spec.nfc = true;
    spec.steps = {{.kind = SplitStep::Kind::kQwen2}};
  } else if (pre == "smollm") {
    spec.steps = {{.kind = SplitStep::Kind::kDigits}, {.kind = SplitStep::Kind::kGpt2}};
  } else if (pre == "gpt-2") {
    spec.steps = {{.kind = SplitStep::Kind::kGpt2}};
  } else if (pre == "llama-bpe") {
    spec.ignore_merges = true;
    spec.steps = {{.kind = SplitStep::Kind::kLlama3}};
  } else {
    fail(ErrorKind::kInvalidInput, "Tokenizer", where, ": tokenizer.ggml.pre '", pre,
         "' is not supported; expected qwen2, deepseek-r1-qwen, smollm, gpt-2 or llama-bpe");
  }
}

std::string token_text(const data::GgufFile& file, const char* key, const TokenizerSpec& spec) {
  const auto* id = file.find<int64_t>(key);
  if (id == nullptr) return "";
  if (*id < 0 || static_cast<size_t>(*id) >= spec.pieces.size())
    fail(ErrorKind::kCorrupt, "Tokenizer", spec.where, ": ", key, " = ", *id, " of ",
         spec.pieces.size(), " tokens");
  return spec.pieces[static_cast<size_t>(*id)];
}

}  // namespace

TokenizerSpec spec_from_gguf(const std::string& path) {
  const data::GgufFile file = data::GgufFile::open(path);
  TokenizerSpec spec;
  spec.where = path;
  const auto& model = file.require<std::string>("tokenizer.ggml.model");
  if (model != "gpt2")
    fail(ErrorKind::kInvalidInput, "Tokenizer", path, ": tokenizer.ggml.model '", model,
         "' is not supported; expected gpt2 (byte-level BPE)");
  apply_pre(file.require<std::string>("tokenizer.ggml.pre"), path, spec);
  spec.pieces = file.require<std::vector<std::string>>("tokenizer.ggml.tokens");
  if (static_cast<int64_t>(spec.pieces.size()) > kMaxVocabulary)
    fail(ErrorKind::kCorrupt, "Tokenizer", path, ": ", spec.pieces.size(), " tokens");
  for (const std::string& piece : spec.pieces)
    if (!base::is_valid_utf8(piece))
      fail(ErrorKind::kCorrupt, "Tokenizer", path, ": tokenizer.ggml.tokens: invalid UTF-8");
  for (const std::string& merge : file.require<std::vector<std::string>>("tokenizer.ggml.merges")) {
    if (!base::is_valid_utf8(merge))
      fail(ErrorKind::kCorrupt, "Tokenizer", path, ": tokenizer.ggml.merges: invalid UTF-8");
    spec.merges.push_back(split_merge(merge, path));
  }
  if (const auto* types = file.find<std::vector<int64_t>>("tokenizer.ggml.token_type")) {
    if (types->size() != spec.pieces.size())
      fail(ErrorKind::kCorrupt, "Tokenizer", path, ": ", types->size(), " token types for ",
           spec.pieces.size(), " tokens");
    for (size_t i = 0; i < types->size(); ++i) {
      const auto id = static_cast<int32_t>(i);
      const int64_t type = (*types)[i];
      if (type == kControl || type == kUserDefined)
        spec.added.push_back({.content = spec.pieces[i], .id = id, .special = type == kControl});
      if (type == kUnused) spec.unused.push_back(id);
    }
  }
  spec.bos = token_text(file, "tokenizer.ggml.bos_token_id", spec);
  spec.eos = token_text(file, "tokenizer.ggml.eos_token_id", spec);
  if (const auto* text = file.find<std::string>("tokenizer.chat_template"))
    spec.chat_template = *text;
  return spec;
}

}  // namespace erank::text
