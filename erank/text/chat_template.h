// The checkpoint's own chat template, run by a small part of Jinja: as much as the templates of
// Qwen2, Qwen2.5, Qwen3, SmolLM2, Llama and LLaMA-Factory's exports use to render a turn. White
// space as transformers sets it (trim_blocks, lstrip_blocks, one newline at the end of the source
// dropped).
//
// Known: text, {{ }}, {# #}; for (if, else, several targets, loop.index ... loop.nextitem),
// if/elif/else, set (also of namespace attributes and as a block), break, continue, generation; or,
// and, not, chained comparisons, in, + - * // % on integers, + ~ on texts and lists, inline if,
// attributes, subscripts, slices, list, dict and tuple literals; filters trim, length, count,
// tojson, default, string; tests defined, undefined, none, string, number, integer, boolean,
// mapping, sequence, iterable, true, false, equalto; methods strip, lstrip, rstrip, startswith,
// endswith, split, get, items; namespace(...), raise_exception(text). Everything else that is Jinja
// is read, and refused by name only when rendering reaches it; statements that we cannot skip
// (macro, include, ...) are refused at once.
//
// A template is untrusted: source size, nesting, the work and the memory of a rendering are
// bounded.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace erank::text {

struct ChatMessage {
  std::string role;  // "user", "assistant"
  std::string content;
};

struct ChatConversation {
  std::vector<ChatMessage> messages;
  bool add_generation_prompt = true;
  std::string bos_token{}, eos_token{};  // what the template's variables of these names hold
};

// Immutable after construction; thread-safe.
class ChatTemplate {
 public:
  // Throws Error{kInvalidInput} that names the line, the construct and the way out.
  explicit ChatTemplate(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // The rendered conversation. `tools`, `documents` and every other variable are undefined. Throws
  // like the constructor.
  std::string render(const ChatConversation& conversation) const;

  // The same, nullopt where render() throws: for conversations that a template need not know.
  std::optional<std::string> try_render(const ChatConversation& conversation) const;

 private:
  struct Body;
  std::unique_ptr<const Body> body_;
};

}  // namespace erank::text
