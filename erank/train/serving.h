// The weights in training as serving computes with them.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "erank/engine/engine.h"
#include "erank/model/parameters.h"
#include "erank/rank/score_reader.h"
#include "erank/text/score_distribution.h"

namespace erank::train {

// Of all prompts together: what reading them costs.
int64_t count_tokens(const std::vector<base::Ids>& prompts);

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

  // The direct answer's distribution after each prompt. `answer_prefix`: what follows a prompt
  // before the answer's digits (direct_close()); `on_pair` is called after each. Throws Error for a
  // prompt that does not fit the model's context.
  std::vector<text::ScoreDistribution> direct_answers(const std::vector<base::Ids>& prompts,
                                                      const rank::ScoreReader& reader,
                                                      const base::Ids& answer_prefix,
                                                      const std::function<void()>& on_pair);

 private:
  std::unique_ptr<model::Network> network_;
  std::unique_ptr<engine::Engine> engine_;
};

}  // namespace erank::train
