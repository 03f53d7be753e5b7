#include "erank/text/chat_template.h"

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/text/chat_template_eval.h"
#include "erank/text/chat_template_parser.h"

namespace erank::text {
namespace {

constexpr size_t kMaxSourceBytes = size_t{256} << 10;

[[noreturn]] void fail_as_error(const jinja::Fault& fault) {
  base::fail(base::ErrorKind::kInvalidInput, "chat_template", "line ", fault.line, ": ",
             base::sanitize_utf8(fault.what.substr(0, 400)),
             "; expected a chat template of the kind that Qwen, SmolLM2, Llama or LLaMA-Factory "
             "models ship; to use "
             "this model write the text before and after a user's turn into a JSON file "
             "{\"prefix\": \"...\", "
             "\"suffix\": \"...\", \"stop_ids\": [...]} and give it with --prompt-format FILE");
}

jinja::Variables variables_of(const ChatConversation& conversation) {
  std::vector<jinja::Value> messages;
  for (const ChatMessage& message : conversation.messages) {
    messages.push_back(jinja::make_dict(
        {{"role", jinja::Value{message.role}}, {"content", jinja::Value{message.content}}}, 0));
  }
  return {{"messages", jinja::make_list(std::move(messages), 0)},
          {"add_generation_prompt", jinja::Value{conversation.add_generation_prompt}},
          {"bos_token", jinja::Value{conversation.bos_token}},
          {"eos_token", jinja::Value{conversation.eos_token}}};
}

}  // namespace

struct ChatTemplate::Body {
  jinja::Body statements;
};

ChatTemplate::ChatTemplate(std::string_view source) {
  try {
    if (source.size() > kMaxSourceBytes) {
      throw jinja::Fault{1, base::str("the template has ", source.size(), " bytes, at most ",
                                      kMaxSourceBytes, " are known here")};
    }
    body_ = std::make_unique<const Body>(Body{jinja::parse(jinja::tokenize(source))});
  } catch (const jinja::Fault& fault) {
    fail_as_error(fault);
  }
}

ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

std::string ChatTemplate::render(const ChatConversation& conversation) const {
  try {
    return jinja::evaluate(body_->statements, variables_of(conversation));
  } catch (const jinja::Fault& fault) {
    fail_as_error(fault);
  }
}

std::optional<std::string> ChatTemplate::try_render(const ChatConversation& conversation) const {
  try {
    return jinja::evaluate(body_->statements, variables_of(conversation));
  } catch (const jinja::Fault&) {
    return std::nullopt;
  }
}

}  // namespace erank::text
