// The weights in training as serving computes with them.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "erank/engine/engine.h"
#include "erank/model/parameters.h"
#include "erank/rank/checkpoint.h"
#include "erank/rank/score_reader.h"
#include "erank/text/score_distribution.h"

namespace erank::train {

// Of all prompts together: what reading them costs.
int64_t count_tokens(const std::vector<base::Ids>& prompts);
// How the model is asked and read. Both must outlive what holds it.
struct ModelFormat {
  const text::Tokenizer& tokenizer;
  const text::PromptFormat& format;

  // What is between a prompt and what the model writes.
  const text::Ids& context_close(rank::Mode mode) const;
};

// The inference network that parameters and their active adapter give, and the engine on it. Not
// thread-safe.
class Serving {
 public:
  Serving();
  ~Serving();

  // Takes the weights as they are now. Always the same configuration.
  void load(const model::Parameters& parameters);
  // REQUIRES: load().
  engine::Engine& engine() { return *engine_; }

  // The answer's distribution after each prompt, as serving reads it: at once (kDirect), or after
  // greedy reasoning of at most `max_think_tokens` (kThink). `on_pair` is called after each. Empty
  // when stop() has ended it. Throws Error for a prompt that does not fit the model's context.
  std::vector<text::ScoreDistribution> answers(const std::vector<text::Ids>& prompts,
                                               const ModelFormat& format, rank::Mode mode,
                                               int max_think_tokens,
                                               const std::function<void()>& on_pair,
                                               const std::function<bool()>& stop);
  // Runs the engine until nothing is left to do, or until stop(): then `requests` are cancelled and
  // the result is false.
  bool run(const std::vector<int64_t>& requests, const std::function<bool()>& stop);

 private:
  std::unique_ptr<model::Network> network_;
  std::unique_ptr<engine::Engine> engine_;
};

}  // namespace erank::train
