#include "erank/train/sft_data.h"

#include <algorithm>

#include "erank/base/error.h"
#include "erank/base/threads.h"
#include "erank/data/training_pairs.h"

namespace erank::train {

SftData read_sft_data(const std::string& path, const Run& run, const SftDataOptions& options) {
  const auto pairs = data::read_training_pairs(path, run.hooks().progress);
  const ExampleWriter writer(run.format(), run.tokenizer(),
                             {options.modes, options.soft, run.instruction()});
  SftData data;
  data.num_pairs = std::ssize(pairs);
  data.examples.resize(pairs.size());
  base::parallel_ranges(pairs.size(), base::num_processors(), [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) data.examples[i] = writer.write(pairs[i]);
  });
  const int64_t context = run.config().max_position_embeddings;
  for (const auto& example : data.examples)
    data.longest = std::max(data.longest, example.num_tokens());
  if (data.longest > context)
    base::fail(base::ErrorKind::kInvalidInput, "--data", path, ": a pair has ", data.longest,
               " tokens, the model reads at most ", context,
               "; a smaller --max-doc-tokens or --max-query-tokens cuts them");
  return data;
}

}  // namespace erank::train
