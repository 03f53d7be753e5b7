#include "erank/synth/completion.h"

#include "erank/base/error.h"
#include "erank/base/utf8.h"

namespace erank::synth {
namespace {

using base::Json;

constexpr size_t kShownBytes = 300;

std::string shown(std::string_view text) {
  std::string line = base::printable(text.substr(0, 4 * kShownBytes));
  if (line.size() > kShownBytes)
    line = line.substr(0, base::utf8_prefix(line, kShownBytes)) + "...";
  return line;
}

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// A string, or a list of parts {"type": "text", "text": ...}; nullopt: neither, nor null.
std::optional<std::string> content_of(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) return std::nullopt;
  std::string text;
  for (const Json& part : *content)
    if (part.is_object()) text += text_of(part, "text");
  return text;
}

std::optional<int64_t> count_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_number_integer() || *found < 0) return std::nullopt;
  return found->get<int64_t>();
}

// An object, or null for what is none or no JSON at all.
Json object_in(std::string_view body) {
  try {
    Json json = base::parse_json(base::replace_half_surrogates(body), "reply");
    return json.is_object() ? json : Json();
  } catch (const base::Error&) {
    return {};
  }
}

// {"error": ...} of an object, as an object; null: none.
Json error_in(const Json& object) {
  const auto found = object.is_object() ? object.find("error") : object.end();
  return found != object.end() && found->is_object() ? *found : Json();
}

ReadReply none(std::string reason) { return {std::nullopt, 200, std::move(reason)}; }

}  // namespace

std::string error_text(std::string_view body) {
  const Json object = object_in(body);
  if (object.is_object()) {
    if (const Json error = error_in(object); error.is_object())
      if (const std::string message = text_of(error, "message"); !message.empty())
        return shown(message);
    for (const char* key : {"error", "message", "detail"})
      if (const std::string text = text_of(object, key); !text.empty()) return shown(text);
  }
  return shown(body);
}

std::string error_code(std::string_view body) {
  const Json error = error_in(object_in(body));
  if (!error.is_object()) return "";
  const std::string code = text_of(error, "code");
  return code.empty() ? text_of(error, "type") : code;
}

ReadReply read_completion(std::string_view body) {
  if (body.starts_with("data:"))
    return none("the reply is a stream of events; expected one JSON object");
  const Json json = object_in(body);
  if (!json.is_object())
    return none(base::str("the reply is no JSON object: ", base::in_quotes(body, 120)));
  const auto choices = json.find("choices");
  const bool is_list = choices != json.end() && choices->is_array() && !choices->empty();
  if (!is_list || !(*choices)[0].is_object()) {
    const Json error = error_in(json);
    if (!error.is_object())
      return none(base::str("the reply has no choices: ", base::in_quotes(body, 120)));
    ReadReply reply = none(base::str("the reply is an error: ", error_text(body)));
    const auto code = error.find("code");
    if (code != error.end() && code->is_number_integer() && *code >= 400 && *code < 600)
      reply.status = code->get<int>();
    return reply;
  }
  const Json& choice = (*choices)[0];
  const auto message = choice.find("message");
  const bool has_message = message != choice.end() && message->is_object();
  const auto content = has_message ? content_of(*message) : std::nullopt;
  if (!content)
    return none(base::str("the reply has no message with content: ", base::in_quotes(body, 120)));
  Completion completion;
  completion.content = *content;
  completion.reasoning = text_of(*message, "reasoning_content");
  if (completion.reasoning.empty()) completion.reasoning = text_of(*message, "reasoning");
  completion.finish_reason = text_of(choice, "finish_reason");
  completion.model = text_of(json, "model");
  const auto usage = json.find("usage");
  if (usage != json.end() && usage->is_object()) {
    completion.prompt_tokens = count_of(*usage, "prompt_tokens");
    completion.completion_tokens = count_of(*usage, "completion_tokens");
  }
  return {std::move(completion), 200, ""};
}

std::string request_body(const RequestOptions& options, std::string_view question) {
  Json body = {{"model", options.model},
               {"messages", Json::array({{{"role", "user"}, {"content", question}}})},
               {"temperature", options.temperature},
               {"max_tokens", options.max_tokens},
               {"stream", false}};
  body.merge_patch(options.changes);
  return base::dump_json(body);
}

}  // namespace erank::synth
