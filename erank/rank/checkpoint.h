// What `--model` names: a Hugging Face folder, a .gguf file, or an adapter folder with erank.json;
// and the defaults that come with it.
#pragma once

#include <optional>
#include <string>

#include "erank/base/json.h"
#include "erank/text/prompt_format.h"
#include "erank/text/tokenizer.h"

namespace erank::rank {

enum class Mode {
  kThink,   // the model writes its reasoning, then the answer
  kDirect,  // the answer is read at once
};

// How the distribution over the answers becomes a score.
enum class ScoreKind {
  kPaper,     // s Pr(s), s the integer of greedy decoding (ERank, section 3.1); on the scale yes-no
              // Pr(yes) / (Pr(yes) + Pr(no)), as kExpected
  kExpected,  // sum i p[i] / sum p[i]
  kInteger,   // s
};

// What erank.json may say; a checkpoint without it is read as a published ERank model: layout
// `paper`, thinking.
struct CheckpointDefaults {
  Mode mode = Mode::kThink;
  ScoreKind score = ScoreKind::kPaper;
  int max_think_tokens = 4096;
  // That int8 was measured to keep this model's rankings, so that Precision::kAuto may take it. Not
  // handed on to what is trained from it.
  bool int8 = false;
  std::string instruction{text::kDefaultInstruction};
  text::PromptOptions prompt;
};

struct Checkpoint {
  std::string folder;   // what was named; "" when that is a file
  std::string weights;  // folder or .gguf: what CheckpointSource and Tokenizer::load read
  std::optional<std::string> adapter;  // PEFT folder to merge
  std::string name;                    // last part of the path: for reports
  CheckpointDefaults defaults;
};

// Looks at `path`; "" is the default model, models/erank-135m beside the program or in the
// installed data folder. The base file of an adapter folder is looked for in the cache folder, then
// in the installed data folder; its sha256 must be what erank.json says. Throws Error{kNotFound}
// whose line names the set-up command when it is missing, and Error{kInvalidInput} for unknown keys
// of erank.json. docs/formats.md lists the keys.
Checkpoint find_checkpoint(const std::string& path);

// Throws Error{kInvalidInput} that names a token without a row in an embedding of `num_rows`. (More
// rows than tokens are usual: tables are padded.)
void check_tokenizer(const text::Tokenizer& tokenizer, int64_t num_rows);

// As erank.json says it; keys that few models need only where they differ from the usual.
base::OrderedJson to_json(const CheckpointDefaults& defaults);

// Writes `folder`/erank.json, with which a folder of a trained model or adapter is read with
// `defaults`: an adapter names `base`, the checkpoint it was trained on; nullptr: the folder holds
// its own weights. The base's file name and sha256 are named when it is one file, else its folder.
void write_checkpoint(const std::string& folder, const CheckpointDefaults& defaults,
                      const Checkpoint* base);

const char* mode_name(Mode mode);             // "think", "direct"
const char* score_kind_name(ScoreKind kind);  // "paper", "expected", "integer"
Mode parse_mode(const std::string& text, const std::string& where);  // "think", "direct"
ScoreKind parse_score_kind(const std::string& text,
                           const std::string& where);  // "paper", "expected", "integer"

}  // namespace erank::rank
