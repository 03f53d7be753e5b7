#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/data/json_values.h"
#include "erank/rank/checkpoint.h"
#include "erank/rank/model_files.h"
#include "erank/text/tokenizer.h"

namespace erank::cli {
namespace {

struct TokenizeFlags {
  std::string model, in = "-", out;
  bool specials = false, decode = false, overwrite = false;
};

// A folder with tokenizer files alone is enough; whatever else `--model` may name is found as for
// reranking.
text::Tokenizer load_tokenizer(const std::string& model) {
  try {
    const rank::Checkpoint found = rank::find_checkpoint(model);
    return text::Tokenizer::load(found.weights, found.adapter.value_or(""));
  } catch (const base::Error&) {
    if (model.empty()) throw;
    return text::Tokenizer::load(model);
  }
}

std::vector<std::string> inputs_of(const TokenizeFlags& flags) {
  std::vector<std::string> inputs = {flags.in, flags.model};
  try {
    for (auto& file : rank::paths_of_model(flags.model)) inputs.push_back(std::move(file));
  } catch (const base::Error&) {
    // a folder with tokenizer files alone
  }
  return inputs;
}

void tokenize(const TokenizeFlags& flags) {
  const text::Tokenizer tokenizer = load_tokenizer(flags.model);
  Output output(flags.out, flags.overwrite, inputs_of(flags));
  data::ByteSource source(flags.in);
  data::ReadNotes notes;
  data::for_each_json(source, &notes, [&](const data::JsonValue& value) {
    const std::string where = value.place.str();
    const base::Json& json = value.value;
    base::OrderedJson result;
    if (flags.decode) {
      if (!json.is_object() || !json.contains("ids") || !json["ids"].is_array())
        base::fail(base::ErrorKind::kInvalidInput, "tokenize", where,
                   ": 'ids' is missing, expected a list of token ids");
      text::Ids ids;
      for (const auto& id : json["ids"]) {
        if (!id.is_number_integer())
          base::fail(base::ErrorKind::kInvalidInput, "tokenize", where, ": 'ids' holds ",
                     base::dump_json(id), ", expected whole numbers");
        ids.push_back(id.get<int32_t>());
      }
      result["text"] = tokenizer.decode(ids);
    } else {
      const text::Ids ids = tokenizer.encode(base::json_require<std::string>(json, "text", where),
                                             {.parse_specials = flags.specials});
      result["ids"] = ids;
      result["pieces"] = base::OrderedJson::array();
      for (const int32_t id : ids) result["pieces"].push_back(tokenizer.piece_of(id));
    }
    output.write(base::dump_json(result) + "\n");
  });
  output.commit();
  tell(flags.in, notes);
}

}  // namespace

void add_tokenize(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand(
      "tokenize", "JSON lines {\"text\"} to {\"ids\", \"pieces\"}, or back with --decode");
  auto flags = std::make_shared<TokenizeFlags>();
  verb->footer(
      "Example:\n  echo '{\"text\": \"Hello world\"}' | erank tokenize --model models/erank-135m");
  verb->add_option("--model", flags->model,
                   "model or folder with tokenizer files (default: erank-135m)");
  verb->add_option("--in", flags->in, "JSON lines; - is stdin")->capture_default_str();
  verb->add_option("--out", flags->out, "write here instead of stdout");
  verb->add_flag("--specials", flags->specials, "added tokens in the text become their ids");
  verb->add_flag("--decode", flags->decode, "{\"ids\"} to {\"text\"}");
  verb->add_flag("--overwrite", flags->overwrite, "replace an existing --out");
  verb->callback([flags, &context] { context.run = [flags] { tokenize(*flags); }; });
}

}  // namespace erank::cli
