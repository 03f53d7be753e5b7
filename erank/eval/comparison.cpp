#include "erank/eval/comparison.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <set>
#include <string_view>
#include <unordered_map>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/eval/report.h"

namespace erank::eval {
namespace {

using base::ErrorKind;

constexpr int64_t kSigns = 10 * kResamples;
constexpr int kWeights = 11;  // 0, 0.1, ... 1

// A different stream of random numbers for each use of the one seed.
enum Stream : uint64_t { kIntervals = 1, kTests = 2, kHalves = 3 };

std::string formatted(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

class Comparer {
 public:
  Comparer(const data::Qrels& qrels, const std::vector<NamedRun>& runs,
           const ComparisonOptions& options, const Blend& blend)
      : qrels_(qrels), runs_(runs), blend_(blend), measures_(parse_measures(options.measures)) {
    out_.options = options;
    out_.num_resamples = kResamples;
    out_.num_signs = kSigns;
    for (const Measure& measure : measures_) {
      if (!measure.is_per_topic())
        base::fail(ErrorKind::kInvalidInput, "report", "measure '", measure.name,
                   "' has no value for each query");
      out_.measures.push_back(measure.name);
    }
  }

  Comparison compare() {
    choose_queries();
    deal_halves();
    for (const NamedRun& run : runs_) out_.runs.push_back(describe(run));
    for (size_t r = 1; r < runs_.size(); ++r) {
      ComparedRun& run = out_.runs[r];
      run.test = test(run.values);
      if (out_.qids.size() < 4) continue;
      run.blend = test_blend(runs_[r].results);
      warn_of_other_documents(runs_[r]);
    }
    correct();
    return std::move(out_);
  }

 private:
  // The queries with a ranking of every run, and judgements; or all with judgements.
  void choose_queries() {
    std::set<std::string> names;
    for (const NamedRun& run : runs_) {
      if (!names.insert(run.name).second)
        base::fail(ErrorKind::kInvalidInput, "report", "two runs are called '", run.name,
                   "'; expected a name each");
      const auto evaluation =
          evaluate(qrels_, run.results.run(), measures_, {.complete = out_.options.complete});
      if (const std::string missing = missing_topics(evaluation); !missing.empty())
        out_.warnings.push_back(run.name + ": " + missing);
    }
    for (const std::string& qid : qrels_.qids)
      if (out_.options.complete || std::all_of(runs_.begin(), runs_.end(), [&](const auto& run) {
            return run.results.results.contains(qid);
          }))
        out_.qids.push_back(qid);
    if (out_.qids.empty())
      base::fail(ErrorKind::kInvalidInput, "report",
                 "no query is in the judgements and in every run; check that the files belong "
                 "together");
    std::sort(out_.qids.begin(), out_.qids.end());
  }

  // What the blend cannot blend: documents of a run that the first one lacks.
  void warn_of_other_documents(const NamedRun& run) {
    int64_t scored = 0, others = 0;
    const auto& first = runs_.front().results.results;
    for (const std::string& qid : out_.qids) {
      const auto list = run.results.results.find(qid), of_first = first.find(qid);
      if (list == run.results.results.end()) continue;
      std::set<std::string_view> known;
      if (of_first != first.end())
        for (const data::Result& result : of_first->second) known.insert(result.docid);
      for (const data::Result& result : list->second)
        if (result.score) ++scored, others += !known.contains(result.docid);
    }
    if (others > 0)
      out_.warnings.push_back(base::str(run.name, ": ", others, " of ", scored,
                                        " scored documents are not in ", runs_.front().name,
                                        "; the blend has them after the others"));
  }

  // half_[q]: 0 or 1, as many of each as there can be.
  void deal_halves() {
    base::Random random(base::derived_seed(out_.options.seed, kHalves));
    half_.resize(out_.qids.size());
    for (size_t i = 0; i < half_.size(); ++i) half_[i] = i % 2;
    for (size_t i = half_.size(); i > 1; --i) std::swap(half_[i - 1], half_[random.below(i)]);
  }

  // [query][measure]; 0 for a query that the run lacks.
  std::vector<std::vector<double>> values_of(const data::Run& run,
                                             const std::vector<Measure>& measures) const {
    const auto evaluation = evaluate(
        qrels_, run, measures, {.relevance_level = out_.options.relevance_level, .complete = true});
    std::vector<std::vector<double>> values;
    for (const std::string& qid : out_.qids) {
      const auto at = std::lower_bound(evaluation.qids.begin(), evaluation.qids.end(), qid);
      values.push_back(at == evaluation.qids.end() || *at != qid
                           ? std::vector<double>(measures.size(), 0)
                           : evaluation.values[static_cast<size_t>(at - evaluation.qids.begin())]);
    }
    return values;
  }

  static std::vector<double> column(const std::vector<std::vector<double>>& values, size_t m) {
    std::vector<double> out;
    for (const auto& row : values) out.push_back(row[m]);
    return out;
  }

  Estimate estimate(std::span<const double> values) const {
    return {mean(values), bootstrap_mean(values, out_.options.confidence,
                                         base::derived_seed(out_.options.seed, kIntervals))};
  }

  ComparedRun describe(const NamedRun& named) const {
    ComparedRun run{.name = named.name};
    const auto values = values_of(named.results.run(), measures_);
    for (size_t m = 0; m < measures_.size(); ++m)
      run.estimates.push_back(estimate(column(values, m)));
    run.values = column(values, 0);
    run.ties = ties(named.results);
    std::map<int64_t, GradeScores, std::greater<>> by_grade;
    GradeScores unjudged;
    for (const std::string& qid : out_.qids) {
      if (const auto time = named.seconds.find(qid); time != named.seconds.end())
        run.seconds.push_back(time->second);
      const auto list = named.results.results.find(qid);
      if (list == named.results.results.end()) continue;
      const auto& grades = qrels_.grades.at(qid);
      for (const data::Result& result : list->second) {
        if (!result.score) continue;  // not reranked, or failed: the model did not read it
        const auto grade = grades.find(result.docid);
        GradeScores& scores = grade == grades.end() ? unjudged : by_grade[grade->second];
        if (grade != grades.end()) scores.grade = grade->second;
        scores.scores.push_back(*result.score);
        if (result.prompt_tokens)
          run.prompt_tokens.push_back(static_cast<double>(*result.prompt_tokens));
        if (result.new_tokens) run.new_tokens.push_back(static_cast<double>(*result.new_tokens));
      }
    }
    for (auto& [grade, scores] : by_grade) run.scores.push_back(std::move(scores));
    if (!unjudged.scores.empty()) run.scores.push_back(std::move(unjudged));
    const auto judged = judged_scores(qrels_, named.results, out_.options.relevance_level);
    const auto num_relevant = std::count_if(judged.begin(), judged.end(),
                                            [](const JudgedScore& pair) { return pair.relevant; });
    const bool both = num_relevant > 0 && num_relevant < std::ssize(judged);
    run.scale = find_scale(named.results, judged, named.scale);
    if (run.scale.highest > 0 && both) {
      std::vector<double> probabilities;
      for (const auto& pair : judged) probabilities.push_back(pair.score / run.scale.highest);
      run.reliability = reliability(probabilities, judged);
    }
    return run;
  }

  // Of the scores themselves: the order of a JSONL file has none.
  TieCounts ties(const data::Results& results) const {
    data::Run scored;
    for (const std::string& qid : out_.qids) {
      const auto list = results.results.find(qid);
      if (list == results.results.end()) continue;
      for (const data::Result& result : list->second)
        if (result.score) scored.hits[qid].push_back({result.docid, *result.score});
    }
    return evaluate(qrels_, scored, {}, {.complete = true}).ties;
  }

  PairedTest test(std::span<const double> values) const {
    const std::vector<double>& first = out_.runs.front().values;
    std::vector<double> differences;
    PairedTest test;
    for (size_t q = 0; q < values.size(); ++q) {
      differences.push_back(values[q] - first[q]);
      // Values that are equal but for the order of their additions.
      const bool same = std::abs(differences.back()) < 1e-12;
      if (same) differences.back() = 0;
      ++(same ? test.ties : differences.back() > 0 ? test.wins : test.losses);
    }
    test.difference = estimate(differences);
    test.p_randomization = paired_randomization_test(
        differences, base::derived_seed(out_.options.seed, kTests), kSigns);
    test.p_t = paired_t_test(differences);
    test.queries_needed = queries_needed(differences);
    return test;
  }

  // The run's scored documents by the blend, ties in the first stage's order; then what the first
  // stage does not have, what has no score, in the run's order.
  data::Run blended(const data::Results& results, double weight) const {
    data::Run out;
    for (const std::string& qid : out_.qids) {
      const auto list = results.results.find(qid), first = runs_.front().results.results.find(qid);
      if (list == results.results.end()) continue;
      std::unordered_map<std::string, std::pair<double, size_t>> first_score;
      if (first != runs_.front().results.results.end())
        for (size_t i = 0; i < first->second.size(); ++i)
          if (const auto& result = first->second[i]; result.score)
            first_score[result.docid] = {*result.score, i};
      struct Candidate {
        const data::Result* result;
        double first;
        size_t place;
      };
      std::vector<Candidate> both;
      std::vector<const data::Result*> others;
      for (const data::Result& result : list->second) {
        const auto found = first_score.find(result.docid);
        if (result.score && found != first_score.end())
          both.push_back({&result, found->second.first, found->second.second});
        else
          others.push_back(&result);
      }
      std::stable_sort(both.begin(), both.end(), [](const Candidate& a, const Candidate& b) {
        return a.first != b.first ? a.first > b.first : a.place < b.place;
      });
      std::stable_sort(others.begin(), others.end(), [](const auto* a, const auto* b) {
        return a->score && (!b->score || *a->score > *b->score);
      });
      std::vector<double> by_first, by_run;
      for (const Candidate& c : both)
        by_first.push_back(c.first), by_run.push_back(*c.result->score);
      const std::vector<double> scores = blend_(by_first, by_run, weight);
      std::vector<size_t> order(both.size());
      for (size_t i = 0; i < order.size(); ++i) order[i] = i;
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return scores[a] > scores[b]; });
      auto& hits = out.hits[qid];
      double place = static_cast<double>(list->second.size());
      for (const size_t i : order) hits.push_back({both[i].result->docid, --place});
      for (const data::Result* other : others) hits.push_back({other->docid, --place});
      out.qids.push_back(qid);
    }
    return out;
  }

  BlendTest test_blend(const data::Results& results) const {
    std::vector<std::vector<double>> by_weight;  // [weight][query]
    for (int i = 0; i < kWeights; ++i)
      by_weight.push_back(column(values_of(blended(results, weight(i)), {measures_.front()}), 0));
    // The best weight on the queries that `use` is true for.
    const auto best = [&](const auto& use) {
      int found = 0;
      double most = -1;
      for (int i = 0; i < kWeights; ++i) {
        double sum = 0;
        for (size_t q = 0; q < half_.size(); ++q)
          if (use(q)) sum += by_weight[static_cast<size_t>(i)][q];
        if (sum > most + 1e-12) most = sum, found = i;
      }
      return found;
    };
    const int used[2] = {best([&](size_t q) { return half_[q] == 1; }),
                         best([&](size_t q) { return half_[q] == 0; })};
    BlendTest out;
    for (int i : {0, 1}) out.weights[i] = weight(used[i]);
    out.weight_of_all = weight(best([](size_t) { return true; }));
    for (size_t q = 0; q < half_.size(); ++q)
      out.values.push_back(by_weight[static_cast<size_t>(used[half_[q]])][q]);
    out.value = estimate(out.values);
    out.test = test(out.values);
    return out;
  }

  static double weight(int i) { return i / 10.0; }

  // Holm's correction over all tests, then the answers.
  void correct() {
    std::vector<PairedTest*> tests;
    for (ComparedRun& run : out_.runs) {
      if (run.test) tests.push_back(&*run.test);
      if (run.blend) tests.push_back(&run.blend->test);
    }
    std::vector<double> randomization, t;
    for (const PairedTest* test : tests)
      randomization.push_back(test->p_randomization), t.push_back(test->p_t);
    randomization = holm(randomization), t = holm(t);
    for (size_t i = 0; i < tests.size(); ++i)
      tests[i]->holm_randomization = randomization[i], tests[i]->holm_t = t[i];
    for (ComparedRun& run : out_.runs) {
      if (!run.test) continue;
      const auto better = [](const PairedTest& test) {
        return test.difference.mean > 0 && test.holm_randomization < 0.05;
      };
      const auto small = [](const PairedTest& test) {
        return test.difference.interval.high < kWorthwhile;
      };
      if (better(*run.test) || (run.blend && better(run.blend->test)))
        run.answer = Answer::kYes;
      else if (out_.qids.size() >= kFewestForNo && small(*run.test) &&
               (!run.blend || small(run.blend->test)))
        run.answer = Answer::kNo;
    }
  }

  const data::Qrels& qrels_;
  const std::vector<NamedRun>& runs_;
  const Blend& blend_;
  std::vector<Measure> measures_;
  std::vector<size_t> half_;
  Comparison out_;
};

}  // namespace

Comparison compare(const data::Qrels& qrels, const std::vector<NamedRun>& runs,
                   const ComparisonOptions& options, const Blend& blend) {
  ERANK_CHECK(!runs.empty());
  return Comparer(qrels, runs, options, blend).compare();
}

std::vector<JudgedScore> judged_scores(const data::Qrels& qrels, const data::Results& results,
                                       int64_t relevance_level) {
  std::vector<std::string> qids = qrels.qids;
  std::sort(qids.begin(), qids.end());
  std::vector<JudgedScore> pairs;
  for (size_t group = 0; group < qids.size(); ++group) {
    const auto list = results.results.find(qids[group]);
    if (list == results.results.end()) continue;
    const auto& grades = qrels.grades.at(qids[group]);
    for (const data::Result& result : list->second)
      if (const auto grade = grades.find(result.docid); result.score && grade != grades.end())
        pairs.push_back(
            {*result.score, grade->second >= relevance_level, static_cast<int64_t>(group)});
  }
  return pairs;
}

std::string answer_name(Answer answer) {
  switch (answer) {
    case Answer::kYes:
      return "yes";
    case Answer::kNo:
      return "no";
    case Answer::kCannotTell:
      break;
  }
  return "cannot be told";
}

std::string answer_text(const Comparison& comparison, const ComparedRun& run) {
  ERANK_CHECK(run.test);
  const std::string& first = comparison.runs.front().name;
  const std::string n = std::to_string(comparison.qids.size()) +
                        (comparison.qids.size() == 1 ? " query" : " queries");
  const auto numbers = [&](const PairedTest& test) {
    return formatted("%+.4f", test.difference.mean) + " " + comparison.measures.front() + " (" +
           formatted("%.0f", 100 * comparison.options.confidence) + " % interval " +
           formatted("%+.4f", test.difference.interval.low) + " to " +
           formatted("%+.4f", test.difference.interval.high) +
           (test.holm_randomization < 0.0001
                ? ", p < 0.0001)"
                : ", p = " + formatted("%.4f", test.holm_randomization) + ")");
  };
  const auto better = [](const PairedTest& test) {
    return test.difference.mean > 0 && test.holm_randomization < 0.05;
  };
  const std::string alone = run.name + " alone " + numbers(*run.test) + " over " + first;
  const std::string blended =
      run.blend ? "blended with " + first + " " + numbers(run.blend->test) : "";
  if (run.answer == Answer::kYes) {
    const bool blend =
        run.blend && better(run.blend->test) &&
        (!better(*run.test) || run.blend->test.difference.mean > run.test->difference.mean);
    return "Yes, on these " + n + ": " + alone + (run.blend ? "; " + blended : "") + ". Use " +
           (blend ? "the blend, --hybrid zscore:" + formatted("%.1f", run.blend->weight_of_all)
                  : run.name + " alone") +
           ".";
  }
  const std::string both = alone + (run.blend ? "; " + blended : "");
  if (run.answer == Answer::kNo)
    return "No, on these " + n + ": " + both + ". A gain of " + formatted("%.2f", kWorthwhile) +
           " or more is unlikely.";
  const PairedTest& larger =
      run.blend && run.blend->test.difference.mean > run.test->difference.mean ? run.blend->test
                                                                               : *run.test;
  std::string text = "It cannot be told with " + n + ": " + both + ".";
  if (larger.difference.mean > 0 && larger.queries_needed > std::ssize(comparison.qids))
    text += " To see a gain of this size takes about " + std::to_string(larger.queries_needed) +
            " queries.";
  return text;
}

}  // namespace erank::eval
