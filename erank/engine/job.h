// A request on its way through the engine: what is derived of it when it arrives, and how far each
// of its samples is. No network, no pages.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "erank/engine/request.h"
#include "erank/model/batch.h"
#include "erank/model/config.h"

namespace erank::engine {

// A request, shared by its samples.
struct Asked {
  int64_t number = 0;
  Request request;
  OnDone on_done;
  int64_t max_new_tokens = 0;  // what the model's context leaves of the request's
  int64_t max_tokens = 0;      // the largest length that a sample may reach
  // What is read at the answer: the first ids of all choices, then one group a distinct first id of
  // the choices of two.
  std::vector<int32_t> first_ids;
  struct Group {
    int32_t first_id = 0;
    std::vector<int32_t> second_ids;
    std::vector<size_t> choices;  // whose second ids they are
  };
  std::vector<Group> groups;
};

// Checks the request and fills in the rest. Throws Error{kInvalidInput}.
void prepare(Asked& asked, const model::ModelConfig& config);

// One sample. First it generates; then it reads its choices.
struct Job {
  std::shared_ptr<const Asked> asked;
  int64_t sequence = -1;
  Completion completion;
  Sampling sampling;
  // Set when the generation has ended: the position whose logits tell each choice's first token.
  int64_t answer_at = -1;
  size_t group = 0;  // the one whose first id is after answer_at now

  const Request& request() const { return asked->request; }
  bool reading() const { return answer_at >= 0; }

  // The ids whose logits are asked at `position`. REQUIRES: reading().
  std::span<const int32_t> asked_ids(int64_t position) const;
  // Takes their logits (in the same order) and the row's other numbers. True: all choices are read.
  bool read_choices(int64_t position, std::span<const float> logits, const model::RowResult& row);
  void note_log_prob(const model::RowResult& row, float logit, double at_temperature);
};

}  // namespace erank::engine
