// `erank rerank` as other verbs use it.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "cli/model_options.h"
#include "cli/rerank_jobs.h"
#include "cli/rerank_run.h"
#include "cli/verbs.h"

namespace erank::cli {

struct RerankFlags {
  ModelFlags model;
  RerankInput input;
  std::string instruction, score, hybrid, format, out, stats, tag = "erank", tail = "append", shard;
  std::string calibrated, long_documents = "windows";
  double min_probability = 0;
  bool think = false, direct = false, resume = false, overwrite = false, quiet = false;
  bool is_part = false;  // of a longer job, which says itself what is complete
  std::shared_ptr<rank::Reranker>* loaded = nullptr;  // see RerankPlan
  int max_document_tokens = 0, max_query_tokens = 0, max_think_tokens = 0;
  int max_windows = rank::ScoreOptions{}.max_windows;
  int samples = 1;
  double temperature = 0;
  uint64_t seed = 0;
};

// The flags that say how a pair is scored: the model's and those after it.
void add_scoring_options(CLI::App& verb, RerankFlags& flags);

// Throws Error{kInvalidInput} for values of theirs that are none.
void check_scoring_options(const RerankFlags& flags);

// Reranks flags.input into flags.out. Returns early when the user interrupts.
RerankDone rerank(const RerankFlags& flags, Context& context);

}  // namespace erank::cli
