// A teacher's labels of queries' documents: what to ask for them, and what to make of the answers.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "erank/data/records.h"
#include "erank/synth/completion.h"
#include "erank/synth/strengths.h"
#include "erank/text/prompt_format.h"

namespace erank::synth {

enum class Judge {
  kPoints,  // a score from 0 to 10 of each document, `samples` times (ERank, arXiv 2509.00520)
  kPairs,   // which of two is more relevant, over `samples` random cycles of a query's documents
};

struct LabelOptions {
  Judge judge = Judge::kPoints;
  int64_t samples = 3;
  int64_t max_tokens = 2048;  // longer answers, with their reasoning, are dropped
  uint64_t seed = 1;          // of the cycles
  std::string instruction{text::kDefaultInstruction};
  text::PromptOptions prompt = {};  // budgets; layout of Judge::kPoints
};

// The scores of a pair's samples in the order of their numbers: consensus is their mean, and the
// sample nearest to it is kept, of equally near ones the first. REQUIRES: at least one.
struct Consensus {
  double mean = 0;
  size_t kept = 0;
};
Consensus consensus_of(std::span<const int> scores);

struct LabelReport {
  int64_t queries = 0, pairs = 0, labelled = 0;
  int64_t requests = 0, answered = 0, failed = 0;  // those neither answered nor failed: not asked
  // Answers: those that count, and those that do not.
  int64_t used = 0, too_long = 0, unformatted = 0;
  std::array<int64_t, 11> histogram{};  // labels, rounded as training rounds them
  double mean = 0, deviation = 0;       // of the labels; the population's
  int64_t sampled_pairs = 0;            // with two scores or more, and of these:
  double sample_deviation = 0;          // mean over the pairs of a pair's standard deviation
  int64_t unanimous = 0;                // all of one score
  int64_t ties = 0;                     // comparisons without a winner; of kPairs
  int64_t prompt_tokens = 0, completion_tokens = 0;
  int64_t without_usage = 0;              // answers whose tokens the server did not count
  std::map<std::string, int64_t> models;  // answers by the model that says it gave them
};

// Not thread-safe.
class Labelling {
 public:
  // Keeps a reference to the tokenizer, whose tokens the budgets count.
  Labelling(std::vector<data::CandidateList> lists, const text::Tokenizer& tokenizer,
            LabelOptions options);

  int64_t num_requests() const { return std::ssize(tasks_); }
  // What tells a request from all others whatever `samples` is: a JSON list of the ids and the
  // sample's number.
  std::string key(int64_t request) const;
  std::string question(int64_t request) const;
  std::string pair_of(int64_t request) const;  // for messages: "query q1, document d2"

  void take(int64_t request, const Completion& completion);  // once each
  void take_failure(int64_t request);

  // Calls `line` with a training pair (docs/formats.md, "Training pairs") as JSON for each document
  // that has a label. `completion_of`: what take() was given; texts are not kept in memory.
  void write(const std::function<Completion(int64_t request)>& completion_of,
             const std::function<void(const std::string& line)>& line) const;

  LabelReport report() const;

  // Of the documents that have a label: their labels, consensus (of kPairs: the same) or
  // first-stage scores as a run; of the last only lists in which each has one.
  enum class Scores { kLabel, kConsensus, kFirstStage };
  data::Run run(Scores scores) const;

 private:
  enum class Fate : uint8_t { kNone, kFailed, kTooLong, kUnformatted, kUsed };
  struct Task {
    uint32_t list = 0, first = 0, second = 0;  // `second` of kPairs
    uint32_t sample = 0;
    Fate fate = Fate::kNone;
    int8_t value = 0;
  };
  struct Label {
    size_t document = 0;
    double score = 0, consensus = 0;
    std::vector<int> scores;            // kPoints
    int64_t kept = 0;                   // kPoints: the request whose reasoning is taken
    double strength = 0;                // kPairs
    std::array<int64_t, 3> outcomes{};  // kPairs: wins, losses, ties
  };
  std::vector<Label> labels_of(size_t list) const;
  std::vector<Label> point_labels(size_t list) const;
  std::vector<Label> pair_labels(size_t list) const;
  int max_value() const { return options_.judge == Judge::kPoints ? 10 : 2; }

  std::vector<data::CandidateList> lists_;
  const text::Tokenizer* tokenizer_;
  LabelOptions options_;
  std::vector<Task> tasks_;         // list by list
  std::vector<size_t> task_begin_;  // of each list, and the end
  LabelReport counted_;             // what take() counts: tokens, models
};

}  // namespace erank::synth
