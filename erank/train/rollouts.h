// Samples of what the model writes after its prompts, as reinforcement learning learns from them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "erank/model/adapter.h"
#include "erank/rank/score_reader.h"
#include "erank/train/communicator.h"
#include "erank/train/rewards.h"
#include "erank/train/serving.h"

namespace erank::train {

struct RolloutOptions {
  std::vector<rank::Mode> modes = {rank::Mode::kDirect};  // one or two
  // G, of each prompt. Of two modes each has a half, those of the first one before those of the
  // second; REQUIRES: an even number then.
  int num_samples = 5;
  int max_think_tokens = 1024;  // kThink: most tokens of a rollout, reasoning and answer
};

// What was sampled at temperature 1 from all tokens. The context of a rollout is its prompt and
// ModelFormat::context_close() of its mode.
struct Rollout {
  text::Ids tokens;              // every one that was drawn, also a stop id at the end
  std::vector<float> log_probs;  // of each, by the engine
  int score = kUnformatted;      // on the model's scale, or kUnformatted
  bool overlong = false;         // cut at its budget or the model's context
};

// kThink: the model writes reasoning, answer and end of its turn by itself; what AnswerParser does
// not read is unformatted. kDirect: after direct_close() one token, on the scale 0..10 another one
// after a "1"; other than an answer's it is unformatted, and "1" followed by anything but "0" is a
// 1.
class RolloutSampler {
 public:
  RolloutSampler(ModelFormat format, const RolloutOptions& options);

  struct Prompt {
    const text::Ids* ids;
    uint64_t seed;  // sample i of the first mode draws with engine::sample_seed(seed, i)
  };
  // Rollouts [prompts, G]; `on_rollout` is called after each. Empty when stop() became true.
  // REQUIRES: serving.load(). Throws Error for a prompt that does not fit the model's context.
  std::vector<Rollout> sample(Serving& serving, const std::vector<Prompt>& prompts,
                              const std::function<void()>& on_rollout,
                              const std::function<bool()>& stop) const;

 private:
  Rollout read(const engine::Completion& completion, rank::Mode mode) const;
  int score_of(const text::Ids& tokens, rank::Mode mode) const;

  ModelFormat format_;
  RolloutOptions options_;
  rank::ScoreReader reader_;
};

// A collective: fills the rollouts that this rank did not draw, `mine`[i] 0, from those that did.
void exchange_rollouts(Communicator& ranks, const std::vector<uint8_t>& mine,
                       std::vector<Rollout>& rollouts);

// For a checkpoint: rollouts with what belongs to each of their tokens, as named fp32 tensors.
struct RolloutTokens {
  std::vector<Rollout> rollouts;
  std::vector<float> old_log_probs, reference_log_probs;  // [tokens]; the latter may be empty

  int64_t num_tokens() const;
  std::vector<model::NamedTensor> tensors() const;
  // Takes back what tensors() gave from a file that holds them among others, which `others` fills.
  // Throws Error{kCorrupt} when they cannot be `count` rollouts with scores up to `max_score`.
  static RolloutTokens load(const std::string& path, int64_t count, int max_score,
                            std::vector<model::NamedTensor> others);
};

}  // namespace erank::train
