#include <memory>

#include "cli/checks.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/data/json_values.h"
#include "erank/model/config.h"
#include "erank/rank/checkpoint.h"
#include "erank/rank/model_files.h"
#include "erank/text/prompt_format.h"

namespace erank::cli {
namespace {

struct PromptFlags {
  std::string model, format, layout, scale, in = "-", out;
  int max_document_tokens = 0, max_query_tokens = 0;
  bool direct = false, overwrite = false;
};

void prompt(const PromptFlags& flags) {
  const rank::Checkpoint checkpoint = rank::find_checkpoint(flags.model);
  text::PromptOptions options = checkpoint.defaults.prompt;
  if (flags.max_document_tokens > 0) options.max_document_tokens = flags.max_document_tokens;
  if (flags.max_query_tokens > 0) options.max_query_tokens = flags.max_query_tokens;
  if (!flags.scale.empty()) options.scale = text::parse_scale(flags.scale, "--scale");
  if (!flags.layout.empty())
    options.layout = flags.layout == "paper" ? text::Layout::kPaper : text::Layout::kPassageLast;
  const text::Tokenizer tokenizer =
      text::Tokenizer::load(checkpoint.weights, checkpoint.adapter.value_or(""));
  rank::check_tokenizer(tokenizer, model::load_config(checkpoint.weights).vocab_size);
  const text::PromptFormat format = flags.format.empty()
                                        ? text::PromptFormat(tokenizer, options)
                                        : text::PromptFormat(tokenizer, options, flags.format);
  std::vector<std::string> inputs = rank::paths_of_model(flags.model);
  inputs.insert(inputs.end(), {flags.in, flags.format});
  Output output(flags.out, flags.overwrite, inputs);
  data::ByteSource source(flags.in);
  data::ReadNotes notes;
  data::for_each_json(source, &notes, [&](const data::JsonValue& value) {
    const std::string where = value.place.str();
    const base::Json& json = data::object_of(value);
    base::refuse_unknown_keys(json, {"query", "document", "instruction"}, where);
    text::Prompt prompt = format.render(
        base::json_value<std::string>(json, "instruction", checkpoint.defaults.instruction, where),
        base::json_require<std::string>(json, "query", where),
        base::json_require<std::string>(json, "document", where));
    if (flags.direct) {
      const auto& close = format.direct_close();
      prompt.ids.insert(prompt.ids.end(), close.begin(), close.end());
      prompt.text += tokenizer.decode(close);
    }
    base::OrderedJson result;
    result["text"] = prompt.text;
    result["ids"] = prompt.ids;
    result["truncated"] = prompt.query_truncated || prompt.document_truncated;
    result["query_truncated"] = prompt.query_truncated;
    result["document_truncated"] = prompt.document_truncated;
    output.write(base::dump_json(result) + "\n");
  });
  output.commit();
  tell(flags.in, notes);
}

}  // namespace

void add_prompt(CLI::App& app, Context& context) {
  auto* verb =
      app.add_subcommand("prompt", "JSON lines {\"query\", \"document\"} to what the model reads");
  auto flags = std::make_shared<PromptFlags>();
  verb->footer(
      "Example:\n  echo '{\"query\": \"sky\", \"document\": \"Blue.\"}' | erank prompt --model "
      "models/erank-135m");
  verb->add_option("--model", flags->model, "model (default: erank-135m)");
  verb->add_option("--prompt-format", flags->format,
                   "JSON {prefix, suffix, stop_ids} in place of the chat template");
  verb->add_option("--layout", flags->layout, "paper or passage-last (default: the checkpoint's)")
      ->check(CLI::IsMember({"paper", "passage-last"}));
  verb->add_option("--scale", flags->scale,
                   "what is asked for: yes-no, 0-3 or 0-10 (default: the checkpoint's)")
      ->check(CLI::IsMember({"yes-no", "0-3", "0-10"}));
  verb->add_option("--max-doc-tokens", flags->max_document_tokens,
                   "cut documents to so many tokens")
      ->check(positive_number());
  verb->add_option("--max-query-tokens", flags->max_query_tokens, "cut queries to so many tokens")
      ->check(positive_number());
  verb->add_flag("--direct", flags->direct, "append the answer prefix of direct mode");
  verb->add_option("--in", flags->in, "JSON lines; - is stdin")->capture_default_str();
  verb->add_option("--out", flags->out, "write here instead of stdout");
  verb->add_flag("--overwrite", flags->overwrite, "replace an existing --out");
  verb->callback([flags, &context] { context.run = [flags] { prompt(*flags); }; });
}

}  // namespace erank::cli
