#include "erank/engine/job.h"

#include <algorithm>

#include "erank/base/error.h"

namespace erank::engine {
namespace {

using base::ErrorKind;

void check_ids(const Ids& ids, const char* what, int64_t vocab_size) {
  for (const int32_t id : ids)
    if (id < 0 || id >= vocab_size)
      base::fail(ErrorKind::kInvalidInput, "engine", what, ": id ", id,
                 " is outside the model's vocabulary of ", vocab_size);
}

void check_request(const Request& request, int64_t vocab_size) {
  if (request.prompt.empty())
    base::fail(ErrorKind::kInvalidInput, "engine", "the prompt is empty, expected at least one id");
  check_ids(request.prompt, "prompt", vocab_size);
  check_ids(request.answer_prefix, "answer prefix", vocab_size);
  for (const Ids& choice : request.choices) {
    check_ids(choice, "choice", vocab_size);
    if (choice.empty() || choice.size() > 2)
      base::fail(ErrorKind::kInvalidInput, "engine", "a choice has ", choice.size(),
                 " ids, expected 1 or 2");
  }
  if (request.max_new_tokens < 0)
    base::fail(ErrorKind::kInvalidInput, "engine", "max_new_tokens is ", request.max_new_tokens,
               ", expected 0 or more");
  if (request.num_samples < 1)
    base::fail(ErrorKind::kInvalidInput, "engine", "num_samples is ", request.num_samples,
               ", expected 1 or more");
  check(request.sampling);
}

}  // namespace

void prepare(Asked& asked, const model::ModelConfig& config) {
  const Request& request = asked.request;
  check_request(request, config.vocab_size);
  for (size_t i = 0; i < request.choices.size(); ++i) {
    const Ids& choice = request.choices[i];
    asked.first_ids.push_back(choice[0]);
    if (choice.size() < 2) continue;
    auto group = std::find_if(asked.groups.begin(), asked.groups.end(),
                              [&](const auto& g) { return g.first_id == choice[0]; });
    if (group == asked.groups.end()) {
      asked.groups.push_back({choice[0], {}, {}});
      group = asked.groups.end() - 1;
    }
    group->second_ids.push_back(choice[1]);
    group->choices.push_back(i);
  }
  const int64_t tail = std::ssize(request.answer_prefix) + (asked.groups.empty() ? 0 : 1);
  const int64_t size = std::ssize(request.prompt), context = config.context();
  const int64_t room = context - size - tail;
  if (room < 0)
    base::fail(ErrorKind::kInvalidInput, "engine", "the prompt of ", size, " tokens and the ", tail,
               " that follow it exceed the model's context of ", context, " tokens by ", -room,
               "; shorten it");
  asked.max_new_tokens = std::min<int64_t>(request.max_new_tokens, room);
  asked.max_tokens = size + asked.max_new_tokens + tail;
}

std::span<const int32_t> Job::asked_ids(int64_t position) const {
  return position == answer_at ? asked->first_ids : asked->groups[group].second_ids;
}

bool Job::read_choices(int64_t position, std::span<const float> logits,
                       const model::RowResult& row) {
  const auto& groups = asked->groups;
  const auto ids = asked_ids(position);
  if (position == answer_at) {
    completion.p_choices.resize(ids.size());
    completion.last_is_argmax.resize(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) {
      completion.p_choices[i] = probability(row, logits[i]);
      completion.last_is_argmax[i] = row.argmax == ids[i];
    }
    return groups.empty();
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    const size_t choice = groups[group].choices[i];
    completion.p_choices[choice] *= probability(row, logits[i]);
    completion.last_is_argmax[choice] = row.argmax == ids[i];
  }
  return ++group == groups.size();
}

void Job::note_log_prob(const model::RowResult& row, float logit, double at_temperature) {
  if (request().log_probs)
    completion.log_probs.push_back({log_probability(row, logit), at_temperature});
}

}  // namespace erank::engine
