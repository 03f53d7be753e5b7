// What the model reads: the frame of the ERank prompt in one of its layouts, inside the
// checkpoint's own chat template. The only writer of chat markers, for reranking, training,
// evaluation and serving.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "erank/text/scale.h"
#include "erank/text/tokenizer.h"
#include "erank/text/windows.h"

namespace erank::text {

// Where the passage is; the lines are the same in both.
enum class Layout {
  kPaper,        // query, passage, then the answer format: the published checkpoints
  kPassageLast,  // the answer format before the passage, so that a query's prefix is shared whole
};

struct PromptOptions {
  Layout layout = Layout::kPaper;
  Scale scale = Scale::kZeroToTen;  // what the frame asks for
  int max_query_tokens = 2048;      // each at least 1; the frame is never cut
  int max_document_tokens = 2048;
  // A query or document without a lower-case letter, in which at least three words have upper-case
  // letters, is lower-cased (Unicode's simple mapping). "NATO" and "US GDP" are kept.
  bool lower_capitals = false;
  // Where the suffix after the user's turn opens the reasoning itself, none of these opens it again
  // and both answer prefixes close it; where it has closed it too, direct mode only answers.
  std::string think_open{};  // appended to the prompt in thinking mode; "" for none
  std::string think_close = "</think><answer>";          // answer prefix that ends the reasoning
  std::string direct_close = "<think></think><answer>";  // answer prefix of direct mode
};

struct Prompt {
  std::string text;  // the whole rendered text, valid UTF-8
  Ids ids;           // of the whole text; its markers as added-token ids, nothing of the user's
  bool query_truncated = false;
  bool document_truncated = false;
  int64_t document_tokens = 0;  // of what is kept of a document that was cut, as encoded alone
};

// Immutable after construction; thread-safe. Keeps a reference to the tokenizer, which must outlive
// it.
class PromptFormat {
 public:
  // Runs the tokenizer's chat template on a few turns and keeps the text before and after the
  // user's. Throws Error{kInvalidInput} when there is no template, when it has a construct that we
  // do not know (named), or when it changes what the user wrote; `--prompt-format FILE` is the way
  // out.
  PromptFormat(const Tokenizer& tokenizer, PromptOptions options);
  // The same with {"prefix": text, "suffix": text, "stop_ids": [id, ...]} from a JSON file instead
  // of the template. Throws Error{kNotFound} or Error{kInvalidInput}.
  PromptFormat(const Tokenizer& tokenizer, PromptOptions options, const std::string& format_file);

  // Ids equal those of Hugging Face's tokenizer for the whole text, with one difference: a marker
  // or tag in the instruction, the query or the document stays ordinary text. Query and
  // document are cut to their first max_*_tokens ids, as encoded alone, decoded back, never inside
  // a character; encoded again inside the prompt they may be a few ids more or fewer. A prompt of
  // more than `max_ids` is cut further, the document down to its first id, then the query; it is
  // longer all the same where the frame and the instruction leave no room.
  Prompt render(std::string_view instruction, std::string_view query, std::string_view document,
                int64_t max_ids = std::numeric_limits<int64_t>::max()) const;

  // The document's windows as render() reads them, after lower-casing of the whole; see
  // split_windows.
  Windows windows(std::string_view document, int max_tokens, int max_windows) const;

  const Ids& direct_close() const { return direct_close_; }  // the answer prefix of direct mode
  const Ids& think_open() const { return think_open_; }
  const Ids& think_close() const { return think_close_; }    // appended to force an answer
  const Ids& answer_close() const { return answer_close_; }  // after an answer's integer
  // End of turn and end of text: the tokenizer's eos, `<|im_end|>` and `<|endoftext|>` where it has
  // them, and the added token with which the template closes an assistant's turn. Of a format file:
  // as written there.
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }
  // What no reasoning may hold: the tags of the answer's grammar, the added tokens around a user's
  // turn, and those of stop_ids().
  const std::vector<std::string>& markers() const { return markers_; }
  const PromptOptions& options() const { return options_; }
  // The text before and after the user's turn, e.g. "<|im_start|>user\n" and
  // "<|im_end|>\n<|im_start|>assistant\n".
  const std::string& prefix() const { return prefix_; }
  const std::string& suffix() const { return suffix_; }

 private:
  const Tokenizer* tokenizer_;
  PromptOptions options_;
  std::string prefix_, suffix_;
  // The prefix up to its last marker as ids, and the text after it; the suffix's text before its
  // first marker, and the rest as ids.
  Ids prefix_ids_, suffix_ids_;
  std::string prefix_end_, suffix_begin_;
  std::vector<int32_t> stop_ids_;
  std::vector<std::string> markers_;
  Ids direct_close_, think_open_, think_close_, answer_close_;

  void read_template();
  void read_file(const std::string& path);
  void add_stop_id(std::optional<int32_t> id);
  void prepare();
  Prompt fill(const std::string& instruction, const std::string& query,
              const std::string& document) const;
};

// What a teacher is asked who writes training data: the text of a user's turn alone, since its
// server writes the chat markers. Query and documents are cut as by PromptFormat, in tokens of
// `tokenizer`; of `options` the budgets and lower_capitals count. The first is the frame of
// options.layout. The second asks which of two documents is more relevant: the answer, in the same
// tags, is 1 or 2, or 0 for neither. Thread-safe.
std::string score_question(const Tokenizer& tokenizer, const PromptOptions& options,
                           std::string_view instruction, std::string_view query,
                           std::string_view document);
std::string compare_question(const Tokenizer& tokenizer, const PromptOptions& options,
                             std::string_view instruction, std::string_view query,
                             std::string_view first, std::string_view second);

// The instruction of MS MARCO, TREC DL and BEIR: the default.
inline constexpr std::string_view kDefaultInstruction =
    "Given a query, retrieval relevant passage.";

}  // namespace erank::text
