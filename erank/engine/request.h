// What is asked of the engine, and what it gives back.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <span>
#include <vector>

#include "erank/base/ids.h"
#include "erank/engine/sampler.h"

namespace erank::engine {

using base::Ids;

// What a watcher says after each new token.
struct Verdict {
  bool stop = false;
  int keep = -1;      // when stopping: how many of the new tokens stay; -1: all
  bool force = true;  // when stopping: append the request's answer prefix
};

struct Request {
  Ids prompt = {};         // not empty
  int max_new_tokens = 0;  // 0: straight to the answer prefix
  Sampling sampling = {};
  std::vector<int32_t> stop_ids = {};  // end the generation; not kept among the new tokens
  // Called on the thread that calls step(), after each new token but a stop id, with the sample's
  // number and all its new tokens. May be empty; may submit and cancel. If it throws, this sample
  // fails with that exception and the others go on.
  std::function<Verdict(int sample, std::span<const int32_t> new_tokens)> watch = {};
  // The answer prefix (the end of the reasoning and the opening of the answer), which
  // forces the model to give one: appended when the generation has ended by a stop id, the budget,
  // a full context, or a verdict that says so.
  Ids answer_prefix = {};
  // Continuations whose probabilities are read after the answer prefix (without one: after the last
  // kept token). Each is one or two ids long (an answer such as "10" is two); those that share a
  // first token are read in one extra position, and the first such position costs no extra pass.
  std::vector<Ids> choices = {};
  // Independent samples of the same prompt, which is computed once. Sample i draws with
  // sample_seed(sampling.seed, i).
  int num_samples = 1;
  // Samples of one queue start in the order of submission; of several queues some of each in turn
  // (SchedulerOptions::turn).
  int64_t queue = 0;
  bool log_probs = false;  // of the new tokens: Completion::log_probs
};

enum class Finish {
  kStopped,    // the model wrote a stop id
  kWatched,    // the watcher stopped it
  kBudget,     // max_new_tokens reached
  kContext,    // only the answer prefix and a choice still fit the model's context
  kCancelled,  // by Engine::cancel: the rest is what there was by then
};

// What became of one sample.
struct Completion {
  int sample = 0;
  Ids new_tokens;  // what the model wrote and was kept (no stop id, no answer prefix)
  Finish finish = Finish::kBudget;
  int32_t stop_id = -1;  // with kStopped
  bool forced = false;   // the answer prefix was appended
  // With Request::log_probs, one a new token, with kStopped one more for the stop id: its natural
  // log-probability over the full vocabulary at temperature 1, and at the request's (0 when that is
  // 0).
  struct LogProb {
    double at_one = 0, at_temperature = 0;
  };
  std::vector<LogProb> log_probs;
  // One a choice: its probability at temperature 1 over the full vocabulary, the product of its
  // tokens'; and whether its last token is the most probable of all at its position.
  std::vector<double> p_choices;
  std::vector<bool> last_is_argmax;
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;  // of the prompt, found in the cache instead of computed
  std::exception_ptr fault;   // set: nothing but `sample` is; Error when it can never fit
};

// Called exactly once for each sample of a request.
using OnDone = std::function<void(Completion)>;

}  // namespace erank::engine
