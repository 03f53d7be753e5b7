// What the model reads: the frame of the ERank prompt in one of its layouts, inside the checkpoint's own chat
// template. The only writer of chat markers, for reranking, training, evaluation and serving.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "erank/text/tokenizer.h"

namespace erank::text {

enum class Layout {
  kPaper,        // query, passage, then the answer format: the published checkpoints
  kPassageLast,  // the answer format before the passage, so that a query's prefix is shared whole
};

struct PromptOptions {
  Layout layout = Layout::kPaper;
  int max_query_tokens = 2048;     // the frame is never cut
  int max_document_tokens = 2048;
  std::string think_open;                              // appended to the prompt in thinking mode; "" for none
  std::string think_close = "</think><answer>";        // closes a thought at its budget
  std::string direct_close = "<think></think><answer>";  // appended to the prompt in direct mode
};

struct Prompt {
  std::string text;  // the whole rendered text
  Ids ids;           // encode(text), the template's markers as added-token ids
  bool query_truncated = false;
  bool document_truncated = false;
};

// Immutable after construction; thread-safe. Keeps a reference to the tokenizer.
class PromptFormat {
 public:
  // Runs the tokenizer's chat template once and keeps what stands before and behind the user turn. Throws
  // Error{kInvalidInput} that names a template construct we do not know, and `--prompt-format FILE` as the way out.
  PromptFormat(const Tokenizer& tokenizer, PromptOptions options);
  // The same with {prefix, suffix, stop_ids} from a JSON file instead of the template.
  PromptFormat(const Tokenizer& tokenizer, PromptOptions options, const std::string& format_file);

  Prompt render(std::string_view instruction, std::string_view query, std::string_view document) const;

  const Ids& direct_close() const;   // appended to a prompt: straight to the answer
  const Ids& think_open() const;
  const Ids& think_close() const;    // appended to an unfinished thought
  const std::vector<int32_t>& stop_ids() const;  // end of turn, end of text
  const PromptOptions& options() const;
  // What stands before and behind the user turn, e.g. "<|im_start|>user\n" and "<|im_end|>\n<|im_start|>assistant\n".
  const std::string& prefix() const;
  const std::string& suffix() const;

 private:
  const Tokenizer* tokenizer_;
  PromptOptions options_;
  std::string prefix_, suffix_;
  std::vector<int32_t> stop_ids_;
  Ids direct_close_, think_open_, think_close_;
};

// The instruction of MS MARCO, TREC DL and BEIR: the default.
inline constexpr std::string_view kDefaultInstruction = "Given a query, retrieval relevant passage.";

}  // namespace erank::text
