#include "erank/train/sft_data.h"

#include <algorithm>

#include "erank/base/error.h"
#include "erank/base/threads.h"
#include "erank/data/training_pairs.h"

namespace erank::train {
namespace {

using base::ErrorKind;

// The first marker in the text, nullptr when there is none.
const std::string* marker_in(const std::string& text, const std::vector<std::string>& markers) {
  for (const std::string& marker : markers)
    if (text.find(marker) != text.npos) return &marker;
  return nullptr;
}

// Taking one out can put another one together, so that it goes on until there is none.
std::string without_markers(std::string text, const std::vector<std::string>& markers) {
  while (const std::string* marker = marker_in(text, markers))
    text.erase(text.find(*marker), marker->size());
  return text;
}

enum class Outcome { kGood, kCleaned, kDropped };

[[noreturn]] void refuse_reasoning(const std::string& where, const data::TrainingPair& pair,
                                   const std::string* marker) {
  const std::string what =
      marker ? base::str("holds '", *marker, "': serving may read another answer than ", pair.score)
             : base::str("does not lead to its answer ", pair.score, " as serving reads it");
  base::fail(ErrorKind::kInvalidInput, "--data", where, ": the reasoning ", what,
             ". Correct it, or --clean takes markers out and drops such pairs");
}

[[noreturn]] void refuse_length(const std::string& where, const data::TrainingPair& pair,
                                const Run& run, int64_t length) {
  const auto& limits = run.format().options();
  const auto tokens = [&](const std::string& text) {
    return static_cast<int64_t>(run.tokenizer().encode(text).size());
  };
  const int64_t query = std::min<int64_t>(tokens(pair.query), limits.max_query_tokens);
  const int64_t document = std::min<int64_t>(tokens(pair.text), limits.max_document_tokens);
  const int64_t reasoning = pair.thought ? tokens(*pair.thought) : 0;
  const char* help = "its reasoning is the longest part; shorten it, or --modes direct";
  if (document >= std::max(query, reasoning))
    help = "its document is the longest part; a smaller --max-doc-tokens cuts it";
  else if (query >= reasoning)
    help = "its query is the longest part; a smaller --max-query-tokens cuts it";
  base::fail(ErrorKind::kInvalidInput, "--data", where, ": the pair has ", length,
             " tokens (query ", query, ", document ", document, ", reasoning ", reasoning,
             "), the model reads at most ", run.config().context(), "; ", help);
}

}  // namespace

SftData read_sft_data(const std::string& path, const Run& run, const SftDataOptions& options) {
  data::ReadNotes notes;
  auto pairs = data::read_training_pairs(path, run.hooks().progress, &notes,
                                         text::max_answer(run.format().options().scale));
  run.hooks().tell(path, notes);
  const ExampleWriter writer(run.format(), run.tokenizer(),
                             {options.modes, options.soft, options.rank, run.instruction()});
  const auto& markers = run.format().markers();
  std::vector<Example> examples(pairs.size());
  std::vector<Outcome> outcomes(pairs.size(), Outcome::kGood);
  const auto comes_back = [&](size_t i) {
    return !marker_in(*pairs[i].thought, markers) && writer.reads_back(examples[i]);
  };
  base::parallel_ranges(pairs.size(), base::num_processors(), [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      examples[i] = writer.write(pairs[i]);
      if (!pairs[i].thought || options.modes == Modes::kDirect || comes_back(i)) continue;
      outcomes[i] = Outcome::kDropped;
      if (!options.clean) continue;
      pairs[i].thought = without_markers(std::move(*pairs[i].thought), markers);
      examples[i] = writer.write(pairs[i]);
      if (comes_back(i)) outcomes[i] = Outcome::kCleaned;
    }
  });
  SftData data;
  data.answers = writer.digits();
  for (size_t i = 0; i < pairs.size(); ++i) {
    const std::string where = base::str(path, ":", pairs[i].line);
    if (outcomes[i] == Outcome::kDropped) {
      if (!options.clean) refuse_reasoning(where, pairs[i], marker_in(*pairs[i].thought, markers));
      ++data.num_dropped;
      continue;
    }
    data.num_cleaned += outcomes[i] == Outcome::kCleaned;
    if (examples[i].length() > run.config().context())
      refuse_length(where, pairs[i], run, examples[i].length());
    data.longest = std::max(data.longest, examples[i].num_tokens());
    data.examples.push_back(std::move(examples[i]));
  }
  if (data.examples.empty())
    base::fail(ErrorKind::kInvalidInput, "--data", path,
               ": no reasoning comes back as its answer, every pair was dropped");
  if (data.num_cleaned + data.num_dropped > 0)
    run.hooks().warn(base::str(path, ": --clean took markers out of the reasoning of ",
                               data.num_cleaned, " pairs and dropped ", data.num_dropped, " of ",
                               pairs.size()));
  return data;
}

}  // namespace erank::train
