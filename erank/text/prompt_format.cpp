// The frame (ERank, arXiv 2509.00520; spelling as in the published files), layout kPaper:
//
//   Given a query and a document, please give a relevance score of 0~10.
//   The goal or relevance definition is: {instruction}
//
//   Here is the query:
//   {query}
//
//   Here is the document:
//   {document}
//
//   After thinking, directly choose a relevance score from [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].
//   - 0 represents completely not related
//   - 10 means perfectly related.
//
//   Desired output format:
//   <think>put your thinking here</think><answer>Only allows an integer here</answer>
//
//   Your output:
//
// That is of the scale 0..10, the published one. On 0..3 the first line says 0~3, the line of the
// answers [0, 1, 2, 3] and the legend 3. On kYesNo they are "Given a query and a document, please
// judge their relevance with yes or no.", "After thinking, directly choose a relevance judgement
// from [yes, no].", "- no represents not related", "- yes means related.", and the answer's place
// "Only allows yes or no here".
//
// kPassageLast has the same lines with the two of the document between the output format and "Your
// output:", so that two prompts of one query differ from the passage's first character on.
// compare_question() has the same lines with two documents and the choice between them.
#include "erank/text/prompt_format.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/text/chat_template.h"
#include "erank/text/split_classes.h"
#include "erank/text/white_space.h"

namespace erank::text {
namespace {

using base::ErrorKind;

enum class Part { kText, kTag, kTask, kScale, kAnswer, kInstruction, kQuery, kDocument, kSecond };
struct Piece {
  Part part;
  std::string_view text =
      {};  // of kText, and of kTag: a token of its own where the tokenizer has it
};

constexpr Piece kTask = {Part::kTask};
constexpr Piece kIntroduction = {Part::kText, "\nThe goal or relevance definition is: "};
constexpr Piece kBeforeQuery = {Part::kText, "\n\nHere is the query:\n"};
constexpr Piece kBeforeDocument = {Part::kText, "\n\nHere is the document:\n"};
constexpr Piece kScale = {Part::kScale};
constexpr Piece kOutput = {Part::kText, "\n\nDesired output format:\n"};
constexpr Piece kThinkOpen = {Part::kTag, "<think>"};
constexpr Piece kThought = {Part::kText, "put your thinking here"};
constexpr Piece kThinkClose = {Part::kTag, "</think>"};
constexpr Piece kAnswerOpen = {Part::kTag, "<answer>"};
constexpr Piece kInteger = {Part::kAnswer};
constexpr Piece kAnswerClose = {Part::kTag, "</answer>"};
constexpr Piece kClosing = {Part::kText, "\n\nYour output:"};
constexpr Piece kInstruction = {Part::kInstruction};
constexpr Piece kQuery = {Part::kQuery};
constexpr Piece kDocument = {Part::kDocument};

constexpr Piece kCompareIntroduction = {
    Part::kText,
    "Given a query and two documents, please decide which document is more relevant.\n"
    "The goal or relevance definition is: "};
constexpr Piece kBeforeFirst = {Part::kText, "\n\nHere is document 1:\n"};
constexpr Piece kBeforeSecond = {Part::kText, "\n\nHere is document 2:\n"};
constexpr Piece kSecond = {Part::kSecond};
constexpr Piece kChoice = {Part::kText,
                           "\n\nAfter thinking, directly choose an answer from [0, 1, 2].\n"
                           "- 1 means document 1 is more relevant\n"
                           "- 2 means document 2 is more relevant\n"
                           "- 0 means both are equally relevant.\n\n"
                           "Desired output format:\n"};
constexpr Piece kOnlyInteger = {Part::kText, "Only allows an integer here"};

constexpr std::array kPaperFrame = {kTask,       kIntroduction,   kInstruction, kBeforeQuery,
                                    kQuery,      kBeforeDocument, kDocument,    kScale,
                                    kOutput,     kThinkOpen,      kThought,     kThinkClose,
                                    kAnswerOpen, kInteger,        kAnswerClose, kClosing};
constexpr std::array kPassageLastFrame = {kTask,        kIntroduction,   kInstruction, kBeforeQuery,
                                          kQuery,       kScale,          kOutput,      kThinkOpen,
                                          kThought,     kThinkClose,     kAnswerOpen,  kInteger,
                                          kAnswerClose, kBeforeDocument, kDocument,    kClosing};
constexpr std::array kCompareFrame = {
    kCompareIntroduction, kInstruction, kBeforeQuery, kQuery,     kBeforeFirst, kDocument,
    kBeforeSecond,        kSecond,      kChoice,      kThinkOpen, kThought,     kThinkClose,
    kAnswerOpen,          kOnlyInteger, kAnswerClose, kClosing};

// What the frame says of the scale.
struct ScaleTexts {
  std::string_view task, answers, place;
};
ScaleTexts texts_of(Scale scale) {
  switch (scale) {
    case Scale::kYesNo:
      return {"Given a query and a document, please judge their relevance with yes or no.",
              "\n\nAfter thinking, directly choose a relevance judgement from [yes, no].\n"
              "- no represents not related\n"
              "- yes means related.",
              "Only allows yes or no here"};
    case Scale::kZeroToThree:
      return {"Given a query and a document, please give a relevance score of 0~3.",
              "\n\nAfter thinking, directly choose a relevance score from [0, 1, 2, 3].\n"
              "- 0 represents completely not related\n"
              "- 3 means perfectly related.",
              "Only allows an integer here"};
    case Scale::kZeroToTen:
      break;
  }
  return {
      "Given a query and a document, please give a relevance score of 0~10.",
      "\n\nAfter thinking, directly choose a relevance score from [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, "
      "10].\n"
      "- 0 represents completely not related\n"
      "- 10 means perfectly related.",
      "Only allows an integer here"};
}

std::vector<Piece> frame_of(const PromptOptions& options) {
  const auto of_layout = options.layout == Layout::kPaper
                             ? std::span<const Piece>(kPaperFrame)
                             : std::span<const Piece>(kPassageLastFrame);
  std::vector<Piece> frame(of_layout.begin(), of_layout.end());
  const ScaleTexts texts = texts_of(options.scale);
  for (Piece& piece : frame)
    if (piece.part == Part::kTask) {
      piece.text = texts.task;
    } else if (piece.part == Part::kScale) {
      piece.text = texts.answers;
    } else if (piece.part == Part::kAnswer) {
      piece.text = texts.place;
    }
  return frame;
}

// The added tokens in a text of ours, as byte ranges in order.
std::vector<std::pair<size_t, size_t>> find_markers(const Tokenizer& tokenizer,
                                                    std::string_view text) {
  std::vector<std::pair<size_t, size_t>> markers;
  size_t pos = 0;
  for (const int32_t id : tokenizer.encode(text, {.parse_specials = true})) {
    const std::string& bytes = tokenizer.bytes_of(id);
    if (bytes.empty() || tokenizer.special(bytes) != id) continue;
    const size_t begin = text.find(bytes, pos);
    if (begin == std::string_view::npos) continue;
    pos = begin + bytes.size();
    markers.emplace_back(begin, pos);
  }
  return markers;
}

// Where a text cut after any byte ends its last whole character.
size_t whole_characters(std::string_view bytes) {
  size_t lead = bytes.size();
  while (lead > 0 && bytes.size() - lead < 4) {
    const auto byte = static_cast<unsigned char>(bytes[--lead]);
    if ((byte & 0xc0) == 0x80) continue;
    const size_t length = byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    return lead + length <= bytes.size() ? bytes.size() : lead;
  }
  return bytes.size();
}

// No lower-case letter, and at least three words with upper-case letters. REQUIRES: text is valid
// UTF-8.
bool is_all_capitals(std::string_view text) {
  int words = 0;
  bool in_word = false;  // in one that was counted
  for (size_t i = 0; i < text.size();) {
    if (const size_t space = white_space_at(text, i)) {
      in_word = false;
      i += space;
      continue;
    }
    const CodePoint c = code_point_at(text, i);
    i += c.length;
    const auto category = utf8proc_category(static_cast<int32_t>(c.value));
    if (category == UTF8PROC_CATEGORY_LL) return false;
    if (category == UTF8PROC_CATEGORY_LU && !std::exchange(in_word, true)) ++words;
  }
  return words >= 3;
}

// REQUIRES: text is valid UTF-8.
std::string lower_case(std::string_view text) {
  std::string lower;
  for (size_t i = 0; i < text.size();) {
    const CodePoint c = code_point_at(text, i);
    i += c.length;
    base::append_utf8(lower,
                      static_cast<uint32_t>(utf8proc_tolower(static_cast<int32_t>(c.value))));
  }
  return lower;
}

// Valid UTF-8, of at most `max_tokens` tokens when encoded alone.
std::string cut(const Tokenizer& tokenizer, const PromptOptions& options, std::string_view text,
                int max_tokens, bool& truncated) {
  std::string whole = base::sanitize_utf8(text);
  const auto max_ids = static_cast<size_t>(max_tokens);
  // No vocabulary has entries of 512 bytes: what comes after cannot be among the first ids, and a
  // text of gigabytes need not be read.
  const size_t max_bytes = std::max(max_ids * 512, size_t{1} << 20);
  if (whole.size() > max_bytes) {
    whole.resize(base::utf8_prefix(whole, max_bytes));
    truncated = true;
  }
  if (options.lower_capitals && is_all_capitals(whole)) whole = lower_case(whole);
  // An id spells at least one byte of the composed text, and composing makes no text more than
  // three times as long.
  if (whole.size() <= max_ids / 3) return whole;
  const Ids ids = tokenizer.encode(whole);
  if (ids.size() <= max_ids) return whole;
  truncated = true;
  std::string kept;
  for (size_t i = 0; i < max_ids; ++i) kept += tokenizer.bytes_of(ids[i]);
  kept.resize(whole_characters(kept));
  return kept;
}

// What a text of ours still has to say of the reasoning after a suffix that opens it itself, as
// those of thinking models and of R1's distillations do ("<|im_start|>assistant\n<think>\n"), or
// that has opened and closed it. REQUIRES: tags are written as in the frame.
class OpenedReasoning {
 public:
  explicit OpenedReasoning(std::string_view suffix) {
    const size_t open = suffix.rfind(kThinkOpen.text), close = suffix.rfind(kThinkClose.text);
    if (open == std::string_view::npos) return;
    closed_ = close != std::string_view::npos && close > open;
    open_ = !closed_;
    if (open_) after_ = suffix.substr(open + kThinkOpen.text.size());
  }

  // Without an opening that the suffix has written, with as much of the white space after it.
  std::string_view opening(std::string_view text) const {
    const size_t begin = skip_white_space(text, 0);
    if (!open_ || !text.substr(begin).starts_with(kThinkOpen.text)) return text;
    text.remove_prefix(begin + kThinkOpen.text.size());
    const auto common = std::mismatch(text.begin(), text.end(), after_.begin(), after_.end());
    return text.substr(common.first - text.begin());
  }
  // Of an answer prefix: what is open it closes, what is closed it does not open again.
  std::string answer_prefix(std::string_view text) const {
    const size_t close = text.find(kThinkClose.text);
    if (open_ && close == std::string_view::npos)
      return std::string(kThinkClose.text) + std::string(text);
    if (open_) return std::string(opening(text));
    const bool opens = text.substr(skip_white_space(text, 0)).starts_with(kThinkOpen.text);
    if (!closed_ || !opens || close == std::string_view::npos) return std::string(text);
    text.remove_prefix(close + kThinkClose.text.size());
    return std::string(text.substr(skip_white_space(text, 0)));
  }

 private:
  bool open_ = false, closed_ = false;
  std::string_view after_;  // what follows the suffix's opening
};

[[noreturn]] void refuse_template(const std::string& what) {
  base::fail(
      ErrorKind::kInvalidInput, "prompt_format", what,
      "; write the text before and after a user's turn into a JSON file {\"prefix\": \"...\", "
      "\"suffix\": \"...\", \"stop_ids\": [...]} and give it with --prompt-format FILE");
}

}  // namespace

PromptFormat::PromptFormat(const Tokenizer& tokenizer, PromptOptions options)
    : tokenizer_(&tokenizer), options_(std::move(options)) {
  read_template();
  prepare();
}

PromptFormat::PromptFormat(const Tokenizer& tokenizer, PromptOptions options,
                           const std::string& format_file)
    : tokenizer_(&tokenizer), options_(std::move(options)) {
  read_file(format_file);
  prepare();
}

void PromptFormat::add_stop_id(std::optional<int32_t> id) {
  if (id && std::find(stop_ids_.begin(), stop_ids_.end(), *id) == stop_ids_.end())
    stop_ids_.push_back(*id);
}

void PromptFormat::read_template() {
  if (tokenizer_->chat_template().empty()) refuse_template("the checkpoint has no chat template");
  const ChatTemplate chat(tokenizer_->chat_template());
  ChatConversation turn;
  turn.bos_token = tokenizer_->bos_token();
  turn.eos_token = tokenizer_->eos_token();
  const auto rendered = [&](const std::string& content) {
    turn.messages = {{"user", content}};
    return chat.render(turn);
  };

  static const std::string kMarker = "The first question of a user.";
  const std::string whole = rendered(kMarker);
  const size_t at = whole.find(kMarker);
  if (at == std::string::npos || whole.find(kMarker, at + 1) != std::string::npos) {
    refuse_template("the chat template does not write a user's turn exactly once");
  }
  prefix_ = whole.substr(0, at);
  suffix_ = whole.substr(at + kMarker.size());

  // What such templates write as control tokens; as ordinary text it would mean nothing.
  for (const char* token :
       {"<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>",
        "<|end_header_id|>", "<|eot_id|>", "<\xef\xbd\x9cUser\xef\xbd\x9c>",
        "<\xef\xbd\x9c"
        "Assistant\xef\xbd\x9c>"})
    if ((prefix_ + suffix_).find(token) != std::string::npos && !tokenizer_->special(token))
      refuse_template(base::str("the chat template writes '", token,
                                "', for which the tokenizer has no token"));

  // The frame begins and ends with letters, so that a template which trims turns changes nothing;
  // what is inside must not change.
  std::string odd;
  for (const Piece& piece : frame_of(options_)) {
    odd += piece.text;
    if (piece.part == Part::kInstruction || piece.part == Part::kQuery ||
        piece.part == Part::kDocument) {
      odd +=
          " \t\n\n  {{ messages }} {% if %} {# #} <think>a</think><answer>1</answer> <|im_start|> "
          "<s> [INST] 'q' "
          "\"r\" \\n & \xc3\xa9 \r\n\n\n ";
    }
  }
  if (rendered(odd) != prefix_ + odd + suffix_) {
    refuse_template("the chat template changes the text of a user's turn");
  }

  add_stop_id(tokenizer_->eos_id());
  add_stop_id(tokenizer_->special("<|im_end|>"));
  add_stop_id(tokenizer_->special("<|endoftext|>"));
  turn.messages = {{"user", kMarker}, {"assistant", "The answer of a model."}};
  turn.add_generation_prompt = false;
  const std::optional<std::string> answered = chat.try_render(turn);
  const size_t answer = answered ? answered->rfind(turn.messages[1].content) : std::string::npos;
  if (answer == std::string::npos) return;
  const std::string after = answered->substr(answer + turn.messages[1].content.size());
  const auto markers = find_markers(*tokenizer_, after);
  if (markers.empty() || skip_white_space(after, 0) < markers[0].first) return;
  add_stop_id(
      tokenizer_->special(after.substr(markers[0].first, markers[0].second - markers[0].first)));
}

void PromptFormat::read_file(const std::string& path) {
  const base::Json json = base::parse_json(base::read_file(path, size_t{1} << 20), path);
  if (!json.is_object()) {
    base::fail(ErrorKind::kInvalidInput, "prompt_format", path,
               ": expected an object {prefix, suffix, stop_ids}");
  }
  base::refuse_unknown_keys(json, {"prefix", "suffix", "stop_ids"}, path);
  prefix_ = base::json_require<std::string>(json, "prefix", path);
  suffix_ = base::json_require<std::string>(json, "suffix", path);
  const auto stop_ids = json.find("stop_ids");
  if (stop_ids == json.end() || !stop_ids->is_array() || stop_ids->empty()) {
    base::fail(ErrorKind::kInvalidInput, "prompt_format", path,
               ": 'stop_ids' should be a list of at least one token id");
  }
  for (const base::Json& id : *stop_ids) {
    if (!id.is_number_integer() || id < 0 || id >= tokenizer_->vocab_size()) {
      base::fail(ErrorKind::kInvalidInput, "prompt_format", path, ": 'stop_ids' holds ",
                 base::dump_json(id), ", expected token ids below ", tokenizer_->vocab_size());
    }
    add_stop_id(id.get<int32_t>());
  }
}

void PromptFormat::prepare() {
  if (options_.max_query_tokens < 1 || options_.max_document_tokens < 1) {
    base::fail(ErrorKind::kInvalidInput, "prompt_format", "max_query_tokens ",
               options_.max_query_tokens, " and max_document_tokens ", options_.max_document_tokens,
               ": expected at least 1");
  }
  const EncodeOptions ours = {.parse_specials = true};
  const auto before = find_markers(*tokenizer_, prefix_);
  const size_t prefix_cut = before.empty() ? 0 : before.back().second;
  prefix_ids_ = tokenizer_->encode(std::string_view(prefix_).substr(0, prefix_cut), ours);
  prefix_end_ = prefix_.substr(prefix_cut);
  const auto after = find_markers(*tokenizer_, suffix_);
  const size_t suffix_cut = after.empty() ? suffix_.size() : after.front().first;
  suffix_begin_ = suffix_.substr(0, suffix_cut);
  suffix_ids_ = tokenizer_->encode(std::string_view(suffix_).substr(suffix_cut), ours);

  for (const Piece& tag : {kThinkOpen, kThinkClose, kAnswerOpen, kAnswerClose})
    markers_.emplace_back(tag.text);
  const auto add_marker = [&](const std::string& marker) {
    if (std::find(markers_.begin(), markers_.end(), marker) == markers_.end())
      markers_.push_back(marker);
  };
  for (const auto& [begin, end] : before) add_marker(prefix_.substr(begin, end - begin));
  for (const auto& [begin, end] : after) add_marker(suffix_.substr(begin, end - begin));
  for (const int32_t id : stop_ids_)
    if (const std::string& bytes = tokenizer_->bytes_of(id); tokenizer_->special(bytes) == id)
      add_marker(bytes);

  const OpenedReasoning reasoning(suffix_);
  direct_close_ = tokenizer_->encode(reasoning.answer_prefix(options_.direct_close), ours);
  think_open_ = tokenizer_->encode(reasoning.opening(options_.think_open), ours);
  think_close_ = tokenizer_->encode(reasoning.answer_prefix(options_.think_close), ours);
  answer_close_ = tokenizer_->encode("</answer>", ours);
}

Prompt PromptFormat::render(std::string_view instruction, std::string_view query,
                            std::string_view document, int64_t max_ids) const {
  const std::string own_instruction = base::sanitize_utf8(instruction);
  bool query_truncated = false, document_truncated = false;
  std::string own_query =
      cut(*tokenizer_, options_, query, options_.max_query_tokens, query_truncated);
  std::string own_document =
      cut(*tokenizer_, options_, document, options_.max_document_tokens, document_truncated);
  Prompt prompt = fill(own_instruction, own_query, own_document);
  const auto shorten = [&](std::string& text, bool& truncated) {
    int64_t kept = std::min(std::ssize(tokenizer_->encode(text)), max_ids);
    while (std::ssize(prompt.ids) > max_ids && kept > 1) {
      kept = std::max<int64_t>(1, kept - (std::ssize(prompt.ids) - max_ids));
      text = cut(*tokenizer_, options_, text, static_cast<int>(kept), truncated);
      prompt = fill(own_instruction, own_query, own_document);
    }
  };
  if (std::ssize(prompt.ids) > max_ids) {
    shorten(own_document, document_truncated);
    shorten(own_query, query_truncated);
  }
  prompt.query_truncated = query_truncated;
  prompt.document_truncated = document_truncated;
  if (document_truncated) prompt.document_tokens = std::ssize(tokenizer_->encode(own_document));
  return prompt;
}

Windows PromptFormat::windows(std::string_view document, int max_tokens, int max_windows) const {
  const std::string whole = base::sanitize_utf8(document);
  const bool lower = options_.lower_capitals && is_all_capitals(whole);
  return split_windows(*tokenizer_, lower ? lower_case(whole) : whole, max_tokens, max_windows);
}

Prompt PromptFormat::fill(const std::string& instruction, const std::string& query,
                          const std::string& document) const {
  Prompt prompt;
  prompt.text = prefix_;
  prompt.ids = prefix_ids_;
  std::string pending = prefix_end_;  // the text between two markers is encoded as one string
  const auto flush = [&] {
    const Ids ids = tokenizer_->encode(pending);
    prompt.ids.insert(prompt.ids.end(), ids.begin(), ids.end());
    pending.clear();
  };
  for (const Piece& piece : frame_of(options_)) {
    const std::string_view text = piece.part == Part::kInstruction ? instruction
                                  : piece.part == Part::kQuery     ? query
                                  : piece.part == Part::kDocument  ? document
                                                                   : piece.text;
    prompt.text += text;
    const std::optional<int32_t> id =
        piece.part == Part::kTag ? tokenizer_->special(text) : std::nullopt;
    if (id) {
      flush();
      prompt.ids.push_back(*id);
    } else {
      pending += text;
    }
  }
  pending += suffix_begin_;
  flush();
  prompt.ids.insert(prompt.ids.end(), suffix_ids_.begin(), suffix_ids_.end());
  prompt.text += suffix_;
  return prompt;
}

namespace {

std::string question(std::span<const Piece> frame, const Tokenizer& tokenizer,
                     const PromptOptions& options, std::string_view instruction,
                     std::string_view query, std::string_view document, std::string_view second) {
  const auto cut_document = [&](std::string_view text) {
    bool unused = false;
    return cut(tokenizer, options, text, options.max_document_tokens, unused);
  };
  bool unused = false;
  std::string text;
  for (const Piece& piece : frame) switch (piece.part) {
      case Part::kInstruction:
        text += base::sanitize_utf8(instruction);
        break;
      case Part::kQuery:
        text += cut(tokenizer, options, query, options.max_query_tokens, unused);
        break;
      case Part::kDocument:
        text += cut_document(document);
        break;
      case Part::kSecond:
        text += cut_document(second);
        break;
      default:
        text += piece.text;
    }
  return text;
}

}  // namespace

std::string score_question(const Tokenizer& tokenizer, const PromptOptions& options,
                           std::string_view instruction, std::string_view query,
                           std::string_view document) {
  return question(frame_of(options), tokenizer, options, instruction, query, document, "");
}

std::string compare_question(const Tokenizer& tokenizer, const PromptOptions& options,
                             std::string_view instruction, std::string_view query,
                             std::string_view first, std::string_view second) {
  return question(kCompareFrame, tokenizer, options, instruction, query, first, second);
}

}  // namespace erank::text
