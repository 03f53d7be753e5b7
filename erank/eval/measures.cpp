#include "erank/eval/measures.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "erank/base/error.h"

namespace erank::eval {
namespace {

constexpr double kGeometricFloor = 1e-5;

using Grades = std::unordered_map<std::string, int64_t>;

struct Judged {
  int64_t rank;  // from 1
  int64_t grade;
};

// What is left of one topic's ranking once it is in order: all that any measure looks at.
struct Topic {
  int64_t num_ret = 0;
  std::vector<Judged> judged;         // retrieved, with a grade of at least 0, by rank
  std::vector<int64_t> negative;      // ranks of the documents retrieved with a negative grade
  std::map<int64_t, int64_t> grades;  // how many judgements have each grade of at least 0
};

// A topic seen at one relevance level.
struct Level {
  int64_t num_rel = 0;
  int64_t num_nonrel = 0;              // judged, below the level
  std::vector<int64_t> ranks;          // of the relevant documents retrieved, ascending
  std::vector<int64_t> nonrel_before;  // judged non-relevant documents before each of them
  std::vector<double> best_precision;  // [i]: the best precision at the i-th of them or later

  int64_t num_rel_ret() const { return static_cast<int64_t>(ranks.size()); }
  int64_t count(int64_t cutoff) const {
    return std::upper_bound(ranks.begin(), ranks.end(), cutoff) - ranks.begin();
  }
};

struct Entry {
  double score;    // as the rules store it
  double precise;  // as the run holds it
  const std::string* docid;
  int64_t grade;  // kNotJudged, or what the judgements say
};
constexpr int64_t kNotJudged = std::numeric_limits<int64_t>::min();

int64_t grade_of(const Grades& grades, const std::string& docid) {
  const auto it = grades.find(docid);
  return it == grades.end() ? kNotJudged : it->second;
}

void count_ties(const std::vector<Entry>& entries, TieCounts& ties) {
  const int64_t tied_before = ties.num_tied;
  ties.num_hits += static_cast<int64_t>(entries.size());
  for (size_t begin = 0; begin < entries.size();) {
    size_t end = begin + 1;
    while (end < entries.size() && entries[end].score == entries[begin].score) ++end;
    const int64_t size = static_cast<int64_t>(end - begin);
    if (size > 1) {
      ties.num_tied += size;
      ties.num_groups += 1;
      ties.largest_group = std::max(ties.largest_group, size);
      std::vector<double> precise;
      for (size_t i = begin; i < end; ++i) precise.push_back(entries[i].precise);
      std::sort(precise.begin(), precise.end());
      ties.num_only_float += std::unique(precise.begin(), precise.end()) - precise.begin() - 1;
    }
    begin = end;
  }
  ties.num_topics += ties.num_tied > tied_before;
}

Topic rank_topic(const Grades& grades, const std::vector<data::Hit>& hits,
                 const EvalOptions& options, TieCounts& ties) {
  std::vector<Entry> entries;
  entries.reserve(hits.size());
  for (const data::Hit& hit : hits) {
    const double score =
        options.rules == TrecEvalRules::k9 ? static_cast<float>(hit.score) : hit.score;
    entries.push_back({score, hit.score, &hit.docid, grade_of(grades, hit.docid)});
  }
  const auto before = [&](const Entry& a, const Entry& b) {
    if (a.score != b.score) return a.score > b.score;
    if (const int64_t x = std::max<int64_t>(a.grade, -1), y = std::max<int64_t>(b.grade, -1);
        options.ties != TieOrder::kTrec && x != y)
      return (x > y) == (options.ties == TieOrder::kBest);
    return *a.docid > *b.docid;
  };
  if (!std::is_sorted(entries.begin(), entries.end(), before))
    std::sort(entries.begin(), entries.end(), before);
  count_ties(entries, ties);
  if (options.max_hits > 0 && entries.size() > static_cast<size_t>(options.max_hits))
    entries.resize(static_cast<size_t>(options.max_hits));

  Topic topic;
  for (const auto& [docid, grade] : grades)
    if (grade >= 0) ++topic.grades[grade];
  for (const Entry& entry : entries) {
    if (options.judged_only && entry.grade < 0) continue;
    ++topic.num_ret;
    if (entry.grade >= 0)
      topic.judged.push_back({topic.num_ret, entry.grade});
    else if (entry.grade != kNotJudged)
      topic.negative.push_back(topic.num_ret);
  }
  return topic;
}

Level see_at(const Topic& topic, int64_t relevance_level) {
  Level level;
  for (const auto& [grade, count] : topic.grades)
    (grade >= relevance_level ? level.num_rel : level.num_nonrel) += count;
  int64_t nonrel = 0;
  for (const Judged& judged : topic.judged) {
    if (judged.grade < relevance_level) {
      ++nonrel;
      continue;
    }
    level.ranks.push_back(judged.rank);
    level.nonrel_before.push_back(nonrel);
  }
  level.best_precision.resize(level.ranks.size());
  double best = 0;
  for (size_t i = level.ranks.size(); i-- > 0;) {
    best = std::max(best, static_cast<double>(i + 1) / static_cast<double>(level.ranks[i]));
    level.best_precision[i] = best;
  }
  return level;
}

double ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

double average_precision(const Level& level, int64_t cutoff) {
  double sum = 0;
  for (size_t i = 0; i < level.ranks.size() && (!cutoff || level.ranks[i] <= cutoff); ++i)
    sum += static_cast<double>(i + 1) / static_cast<double>(level.ranks[i]);
  return ratio(sum, static_cast<double>(level.num_rel));
}

double bpref(const Level& level) {
  double sum = 0;
  const int64_t bound = std::min(level.num_nonrel, level.num_rel);
  for (const int64_t nonrel : level.nonrel_before)
    sum += nonrel == 0 ? 1.0
                       : 1.0 - static_cast<double>(std::min(nonrel, level.num_rel)) /
                                   static_cast<double>(bound);
  return ratio(sum, static_cast<double>(level.num_rel));
}

double interpolated_precision(const Level& level, double recall, TrecEvalRules rules) {
  const double exact = recall * static_cast<double>(level.num_rel);
  const int64_t documents =
      rules == TrecEvalRules::k9 ? static_cast<int64_t>(exact + 0.9) : std::lround(exact);
  if (documents > level.num_rel_ret() || level.ranks.empty()) return 0;
  return level.best_precision[static_cast<size_t>(std::max<int64_t>(documents, 1) - 1)];
}

double eleven_point(const Level& level, const std::vector<double>& recalls, TrecEvalRules rules) {
  double sum = 0;  // from the highest recall down, as trec_eval adds
  for (auto recall = recalls.rbegin(); recall != recalls.rend(); ++recall)
    sum += interpolated_precision(level, *recall, rules);
  return sum / static_cast<double>(recalls.size());
}

// log2(rank + 1) of the ranks from 1.
class Discounts {
 public:
  double at(int64_t rank) {
    while (static_cast<int64_t>(table_.size()) < rank)
      table_.push_back(std::log2(static_cast<double>(table_.size() + 2)));
    return table_[static_cast<size_t>(rank - 1)];
  }

 private:
  std::vector<double> table_;
};

double ndcg(const Topic& topic, const Measure& measure, Discounts& discounts) {
  const auto gain_of = [&](int64_t grade) {
    const auto it = measure.gains.find(grade);
    return it == measure.gains.end() ? static_cast<double>(grade) : it->second;
  };
  double dcg = 0;
  for (const Judged& judged : topic.judged) {
    if (measure.cutoff && judged.rank > measure.cutoff) break;
    const double gain = gain_of(judged.grade);
    if (gain != 0) dcg += gain / discounts.at(judged.rank);
  }
  std::vector<std::pair<double, int64_t>> levels;  // gain, count; the greatest gain first
  for (const auto& [grade, count] : topic.grades)
    if (const double gain = gain_of(grade); gain > 0) levels.emplace_back(gain, count);
  std::sort(levels.rbegin(), levels.rend());
  double ideal = 0;
  int64_t rank = 0;
  for (const auto& [gain, count] : levels)
    for (int64_t i = 0; i < count && (!measure.cutoff || rank < measure.cutoff); ++i)
      ideal += gain / discounts.at(++rank);
  return ratio(dcg, ideal);
}

double set_f(const Level& level, int64_t num_ret, double x) {
  if (level.ranks.empty()) return 0;
  const double found = static_cast<double>(level.num_rel_ret());
  const double precision = found / static_cast<double>(num_ret);
  const double recall = found / static_cast<double>(level.num_rel);
  return (x + 1.0) * precision * recall / (x * precision + recall);
}

// Of the first `cutoff` documents retrieved, or of as many as there are, those that the judgements
// name, with whatever grade.
double judged_share(const Topic& topic, int64_t cutoff) {
  const int64_t depth = cutoff ? std::min(cutoff, topic.num_ret) : topic.num_ret;
  int64_t named = std::upper_bound(topic.negative.begin(), topic.negative.end(), depth) -
                  topic.negative.begin();
  for (const Judged& judged : topic.judged) named += judged.rank <= depth;
  return ratio(static_cast<double>(named), static_cast<double>(depth));
}

double score(const Measure& measure, const Topic& topic, const Level& level, TrecEvalRules rules,
             Discounts& discounts) {
  const int64_t num_rel_ret = level.num_rel_ret();
  const double cutoff = static_cast<double>(measure.cutoff);
  const double rel = static_cast<double>(level.num_rel);
  const double ret = static_cast<double>(topic.num_ret);
  const double rel_ret = static_cast<double>(num_rel_ret);
  const auto judged_before = [&] {
    return std::count_if(topic.judged.begin(), topic.judged.end(),
                         [&](const Judged& x) { return x.rank <= measure.cutoff; });
  };
  switch (measure.kind) {
    case MeasureKind::kRunId:
    case MeasureKind::kNumQ:
      return 0;
    case MeasureKind::kNumRet:
      return ret;
    case MeasureKind::kNumRel:
      return rel;
    case MeasureKind::kNumRelRet:
      return rel_ret;
    case MeasureKind::kNumNonrelJudgedRet:
      return static_cast<double>(topic.judged.size()) - rel_ret;
    case MeasureKind::kAp:
    case MeasureKind::kGmAp:
      return average_precision(level, measure.cutoff);
    case MeasureKind::kRprec:
      return ratio(static_cast<double>(level.count(level.num_rel)), rel);
    case MeasureKind::kBpref:
    case MeasureKind::kGmBpref:
      return bpref(level);
    case MeasureKind::kRr:
      if (level.ranks.empty() || (measure.cutoff && level.ranks[0] > measure.cutoff)) return 0;
      return 1.0 / static_cast<double>(level.ranks[0]);
    case MeasureKind::kIprec:
      return interpolated_precision(level, measure.parameter, rules);
    case MeasureKind::k11ptAvg:
      return eleven_point(level, measure.recall_points, rules);
    case MeasureKind::kP:
      return static_cast<double>(level.count(measure.cutoff)) / cutoff;
    case MeasureKind::kRecall:
      return ratio(static_cast<double>(level.count(measure.cutoff)), rel);
    case MeasureKind::kNdcg:
      return ndcg(topic, measure, discounts);
    case MeasureKind::kSuccess:
      return level.count(measure.cutoff) > 0 ? 1 : 0;
    case MeasureKind::kSetP:
      return ratio(rel_ret, ret);
    case MeasureKind::kSetRelativeP:
      return ratio(rel_ret, std::min(ret, rel));
    case MeasureKind::kSetRecall:
      return ratio(rel_ret, rel);
    case MeasureKind::kSetAp:
      return ratio(rel_ret * rel_ret, ret * rel);
    case MeasureKind::kSetF:
      return set_f(level, topic.num_ret, measure.parameter);
    case MeasureKind::kUnjudged:
      return static_cast<double>(std::min(topic.num_ret, measure.cutoff) - judged_before()) /
             cutoff;
    case MeasureKind::kJudged:
      return judged_share(topic, measure.cutoff);
  }
  ERANK_CHECK(false, "measure kind ", static_cast<int>(measure.kind));
  return 0;
}

// The summary of one measure from its values per topic. `num_topics` is what means are over.
double summarize(const Measure& measure, const std::vector<double>& column, size_t num_topics) {
  double sum = 0;
  if (measure.kind == MeasureKind::kGmAp || measure.kind == MeasureKind::kGmBpref) {
    for (const double value : column) sum += std::log(std::max(value, kGeometricFloor));
    sum += static_cast<double>(num_topics - column.size()) * std::log(kGeometricFloor);
    return std::exp(sum / static_cast<double>(num_topics));
  }
  if (measure.kind == MeasureKind::kNumQ) return static_cast<double>(num_topics);
  for (const double value : column) sum += value;
  return measure.is_count() ? sum : sum / static_cast<double>(num_topics);
}

double num_at_least(const data::Qrels& qrels, int64_t level) {
  int64_t count = 0;
  for (const auto& [qid, grades] : qrels.grades)
    for (const auto& [docid, grade] : grades) count += grade >= level;
  return static_cast<double>(count);
}

}  // namespace

Evaluation evaluate(const data::Qrels& qrels, const data::Run& run,
                    const std::vector<Measure>& measures, const EvalOptions& options) {
  Evaluation result{.measures = measures, .run_tag = run.tag, .complete = options.complete};
  size_t num_both = 0;
  for (const std::string& qid : qrels.qids) {
    const bool found = run.hits.contains(qid);
    num_both += found;
    if (!found) result.not_in_run.push_back(qid);
    if (found || (options.complete && options.rules == TrecEvalRules::k10))
      result.qids.push_back(qid);
  }
  for (const std::string& qid : run.qids)
    if (!qrels.grades.contains(qid)) result.not_judged.push_back(qid);
  if (num_both == 0 && (!options.complete || qrels.qids.empty()))
    base::fail(base::ErrorKind::kInvalidInput, "evaluate", "no topic is in both: the run has ",
               run.qids.size(), " topics", run.qids.empty() ? "" : " ('" + run.qids[0] + "', ...)",
               ", the judgements ", qrels.qids.size(),
               qrels.qids.empty() ? "" : " ('" + qrels.qids[0] + "', ...)",
               "; check that the two files belong together");
  std::sort(result.qids.begin(), result.qids.end());

  std::vector<int64_t> levels;  // distinct, and which of them each measure sees
  std::vector<size_t> level_of;
  for (const Measure& measure : measures) {
    const int64_t level = measure.relevance_level.value_or(options.relevance_level);
    const auto it = std::find(levels.begin(), levels.end(), level);
    level_of.push_back(static_cast<size_t>(it - levels.begin()));
    if (it == levels.end()) levels.push_back(level);
  }

  const std::vector<data::Hit> none;
  Discounts discounts;
  for (const std::string& qid : result.qids) {
    const auto hits = run.hits.find(qid);
    const Topic topic = rank_topic(
        qrels.grades.at(qid), hits == run.hits.end() ? none : hits->second, options, result.ties);
    std::vector<Level> seen;
    for (const int64_t level : levels) seen.push_back(see_at(topic, level));
    std::vector<double>& row = result.values.emplace_back();
    for (size_t m = 0; m < measures.size(); ++m)
      row.push_back(score(measures[m], topic, seen[level_of[m]], options.rules, discounts));
  }

  const size_t num_topics = options.complete ? qrels.qids.size() : result.qids.size();
  for (size_t m = 0; m < measures.size(); ++m) {
    std::vector<double> column;
    for (const std::vector<double>& row : result.values) column.push_back(row[m]);
    double value = summarize(measures[m], column, num_topics);
    if (measures[m].kind == MeasureKind::kNumRel && options.complete &&
        options.rules == TrecEvalRules::k9)
      value = num_at_least(qrels, measures[m].relevance_level.value_or(1));
    result.summary.push_back(value);
  }
  return result;
}

}  // namespace erank::eval
