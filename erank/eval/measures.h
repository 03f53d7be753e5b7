// The measures of trec_eval: from their names to values per topic and their summaries, digit for
// digit what trec_eval 9.0.8 or 10.0 gives. docs/evaluation.md says the rules in prose.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "erank/data/records.h"

namespace erank::eval {

enum class MeasureKind {
  kRunId,               // the run's tag; a text, summary only
  kNumQ,                // topics averaged over; summary only
  kNumRet,              // retrieved documents; this and the next three are summed, not averaged
  kNumRel,              // relevant documents in the judgements
  kNumRelRet,           // relevant documents retrieved
  kNumNonrelJudgedRet,  // documents retrieved that are judged and not relevant
  kAp,                  // sum over relevant documents of the precision at their rank, / num_rel
  kGmAp,                // exp(mean of log(max(AP, 1e-5))); summary only
  kRprec,               // precision at rank num_rel
  kBpref,               // Buckley and Voorhees 2004, with min(R, N) in the denominator
  kGmBpref,             // as kGmAp, of bpref; summary only
  kRr,                  // 1 / rank of the first relevant document
  kIprec,               // the best precision at or after a recall of `parameter`
  k11ptAvg,             // mean of kIprec over `recall_points`
  kP,                   // relevant documents in the first k / k
  kRecall,              // relevant documents in the first k / num_rel
  kNdcg,                // sum gain / log2(rank + 1), over the same of the ideal order
  kSuccess,             // 1 when a relevant document is in the first k
  kSetP,                // num_rel_ret / num_ret
  kSetRelativeP,        // num_rel_ret / min(num_ret, num_rel)
  kSetRecall,           // num_rel_ret / num_rel
  kSetAp,               // num_rel_ret^2 / (num_ret num_rel)
  kSetF,                // (x + 1) P R / (x P + R), x = `parameter`
  kUnjudged,            // documents without a grade in the first k / k
  kJudged,              // documents in the qrels, of any grade, in the first k / min(k, num_ret)
};

// One line of output.
struct Measure {
  std::string name;  // as it is printed
  MeasureKind kind{};
  int64_t cutoff = 0;                                     // look at the first k ranks only; 0: all
  std::optional<int64_t> relevance_level = std::nullopt;  // overrides EvalOptions::relevance_level
  double parameter = 0;
  std::vector<double> recall_points = {};
  std::map<int64_t, double> gains = {};  // kNdcg: grade -> gain; other grades gain themselves

  bool is_count() const;      // printed as an integer
  bool is_per_topic() const;  // false for the three that only exist in the summary, and runid
};

// The measures that `names` ask for; no names mean "official".
// - trec_eval's names, with parameters after a dot or an underscore: "map", "P.5,10",
// "ndcg_cut_10",
//   "ndcg.1=3,2=9", "iprec_at_recall.0.1", "set_F.0.5"; without parameters the family's default
//   list. They come first, in trec_eval's own order, named as trec_eval prints them. A cut-off that
//   is no integer is truncated, as there.
// - The sets "official", "set" and "all_trec" (every family of this file). Parameters asked for a
//   family by its name replace those of a set.
// - ir_measures' names: "nDCG@10", "nDCG(gains={1:3,2:9})@10", "P(rel=2)@5", "RR@10",
//   "SetF(beta=2)", in the order asked for, named as asked. MAP, MRR and NDCG are taken for AP, RR
//   and nDCG. A cut-off is a whole number, a gain one of at least 0.
// Throws Error{kInvalidInput} that names the measure and, when it is unknown, lists the known ones.
std::vector<Measure> parse_measures(const std::vector<std::string>& names);

// In which of its two living versions trec_eval is followed where they differ.
enum class TrecEvalRules {
  k9,   // 9.0.x: scores are 32-bit floats; the recall point r is trunc(r num_rel + 0.9) documents;
        // with `complete` the missing topics have no values of their own, and num_rel counts grades
        // > 0
  k10,  // 10.0: scores are doubles; the recall point is lround(r num_rel); with `complete` missing
        // topics have a row of zeros
};

// What comes first among hits of equal score.
enum class TieOrder {
  kTrec,   // the greater docid, byte by byte: what trec_eval does
  kWorst,  // the lower grade: the least that these scores can be worth
  kBest,   // the higher grade: the most
};

struct EvalOptions {
  TrecEvalRules rules = TrecEvalRules::k9;
  int64_t relevance_level = 1;  // -l: the lowest grade that is relevant; nDCG does not look at it
  bool judged_only = false;     // -J: take documents without a grade out of the ranking
  int64_t max_hits = 0;         // -M: only the first so many hits of a topic; 0: all
  bool complete = false;  // -c: average over all topics of the judgements, missing ones being 0
  TieOrder ties = TieOrder::kTrec;
};

// How often equal scores left the order to the tie rule, over the topics evaluated.
struct TieCounts {
  int64_t num_hits = 0;        // all hits
  int64_t num_tied = 0;        // hits that share their score with another one of the topic
  int64_t num_groups = 0;      // sets of hits with one score
  int64_t largest_group = 0;   // hits in the largest of them
  int64_t num_topics = 0;      // topics with a tie
  int64_t num_only_float = 0;  // neighbours that are equal as floats and differ as doubles
};

struct Evaluation {
  std::vector<Measure> measures;
  std::string run_tag;
  std::vector<std::string> qids = {};            // topics with values, in byte order
  std::vector<std::vector<double>> values = {};  // [topic][measure]; 0 where !is_per_topic()
  std::vector<double> summary = {};              // [measure]
  TieCounts ties = {};
  std::vector<std::string> not_judged = {};  // topics of the run without judgements: skipped
  std::vector<std::string> not_in_run = {};  // topics of the judgements without hits: skipped, or 0
  bool complete = false;
};

// Evaluates every topic that both sides hold. Sums are doubles, added in rank and in topic order.
// Documents that the qrels do not name, and those with a negative grade, are not judged and not
// relevant, but for kJudged, which counts every document that they name; a topic whose judgements
// are all 0 counts, with 0. Where trec_eval divides zero by zero (an empty ranking after -J) the
// value is 0.
// REQUIRES: no docid twice in a topic, no NaN score (read_run refuses both).
// Throws Error{kInvalidInput} when no topic is in both; with `complete` that is a mean of 0, and
// only judgements without a topic are an error. Thread-safe.
Evaluation evaluate(const data::Qrels& qrels, const data::Run& run,
                    const std::vector<Measure>& measures, const EvalOptions& options = {});

}  // namespace erank::eval
