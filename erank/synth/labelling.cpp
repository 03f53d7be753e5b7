#include "erank/synth/labelling.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/text/answer_parser.h"

namespace erank::synth {
namespace {

// As data::read_training_pairs rounds a score.
size_t rounded(double score) { return static_cast<size_t>(std::floor(score + 0.5)); }

template <typename Scores>
double mean_of(const Scores& scores) {
  return std::accumulate(scores.begin(), scores.end(), 0.0) / static_cast<double>(scores.size());
}

// The population's.
template <typename Scores>
double deviation_of(const Scores& scores) {
  const double mean = mean_of(scores);
  double sum = 0;
  for (const double s : scores) sum += (s - mean) * (s - mean);
  return std::sqrt(sum / static_cast<double>(scores.size()));
}

}  // namespace

Consensus consensus_of(std::span<const int> scores) {
  ERANK_CHECK(!scores.empty());
  const int64_t count = std::ssize(scores);
  const int64_t sum = std::accumulate(scores.begin(), scores.end(), int64_t{0});
  Consensus consensus{static_cast<double>(sum) / static_cast<double>(count), 0};
  const auto distance = [&](size_t i) { return std::abs(scores[i] * count - sum); };  // exact
  for (size_t i = 1; i < scores.size(); ++i)
    if (distance(i) < distance(consensus.kept)) consensus.kept = i;
  return consensus;
}

Labelling::Labelling(std::vector<data::CandidateList> lists, const text::Tokenizer& tokenizer,
                     LabelOptions options)
    : lists_(std::move(lists)), tokenizer_(&tokenizer), options_(std::move(options)) {
  ERANK_CHECK(options_.samples >= 1);
  for (size_t l = 0; l < lists_.size(); ++l) {
    task_begin_.push_back(tasks_.size());
    const size_t count = lists_[l].candidates.size();
    const auto add = [&](size_t first, size_t second, int64_t sample) {
      tasks_.push_back({static_cast<uint32_t>(l), static_cast<uint32_t>(first),
                        static_cast<uint32_t>(second), static_cast<uint32_t>(sample)});
    };
    if (options_.judge == Judge::kPoints) {
      for (size_t d = 0; d < count; ++d)
        for (int64_t s = 0; s < options_.samples; ++s) add(d, 0, s);
    } else {
      const auto comparisons = random_cycles(
          count, options_.samples, base::pair_seed(options_.seed, lists_[l].query.id, ""));
      for (size_t i = 0; i < comparisons.size(); ++i)
        add(comparisons[i].first, comparisons[i].second, static_cast<int64_t>(i / count));
    }
  }
  task_begin_.push_back(tasks_.size());
}

std::string Labelling::key(int64_t request) const {
  const Task& task = tasks_[static_cast<size_t>(request)];
  const auto& list = lists_[task.list];
  base::Json key = {list.query.id, list.candidates[task.first].document.id};
  if (options_.judge == Judge::kPairs) key.push_back(list.candidates[task.second].document.id);
  key.push_back(task.sample);
  return base::dump_json(key);
}

std::string Labelling::pair_of(int64_t request) const {
  const Task& task = tasks_[static_cast<size_t>(request)];
  const auto& list = lists_[task.list];
  std::string pair =
      base::str("query ", list.query.id, ", document ", list.candidates[task.first].document.id);
  if (options_.judge == Judge::kPairs)
    pair += " against " + list.candidates[task.second].document.id;
  return pair;
}

std::string Labelling::question(int64_t request) const {
  const Task& task = tasks_[static_cast<size_t>(request)];
  const auto& list = lists_[task.list];
  const std::string& first = list.candidates[task.first].document.text;
  if (options_.judge == Judge::kPoints)
    return text::score_question(*tokenizer_, options_.prompt, options_.instruction, list.query.text,
                                first);
  return text::compare_question(*tokenizer_, options_.prompt, options_.instruction, list.query.text,
                                first, list.candidates[task.second].document.text);
}

void Labelling::take(int64_t request, const Completion& completion) {
  Task& task = tasks_[static_cast<size_t>(request)];
  ERANK_CHECK(task.fate == Fate::kNone);
  counted_.prompt_tokens += completion.prompt_tokens.value_or(0);
  counted_.completion_tokens += completion.completion_tokens.value_or(0);
  counted_.without_usage += !completion.prompt_tokens || !completion.completion_tokens;
  ++counted_.models[completion.model];
  if (completion.finish_reason == "length" ||
      completion.completion_tokens.value_or(0) > options_.max_tokens) {
    task.fate = Fate::kTooLong;
    return;
  }
  const auto answer =
      text::AnswerParser(max_value()).parse_reply(completion.reasoning, completion.content);
  task.fate = answer ? Fate::kUsed : Fate::kUnformatted;
  if (answer) task.value = static_cast<int8_t>(answer->value);
}

void Labelling::take_failure(int64_t request) {
  Task& task = tasks_[static_cast<size_t>(request)];
  ERANK_CHECK(task.fate == Fate::kNone);
  task.fate = Fate::kFailed;
}

std::vector<Labelling::Label> Labelling::point_labels(size_t list) const {
  std::vector<Label> labels;
  std::vector<int64_t> requests;  // of the samples that count
  Label label;
  const auto finish = [&] {
    if (requests.empty()) return;
    const Consensus consensus = consensus_of(label.scores);
    label.score = label.scores[consensus.kept];
    label.consensus = consensus.mean;
    label.kept = requests[consensus.kept];
    labels.push_back(label);
  };
  for (size_t i = task_begin_[list]; i < task_begin_[list + 1]; ++i) {
    const Task& task = tasks_[i];
    if (task.sample == 0) {
      finish();
      label = Label();
      label.document = task.first;
      requests.clear();
    }
    if (task.fate != Fate::kUsed) continue;
    label.scores.push_back(task.value);
    requests.push_back(static_cast<int64_t>(i));
  }
  finish();
  return labels;
}

std::vector<Labelling::Label> Labelling::pair_labels(size_t list) const {
  const size_t count = lists_[list].candidates.size();
  std::vector<Comparison> comparisons;
  std::vector<Label> all(count);
  for (size_t i = task_begin_[list]; i < task_begin_[list + 1]; ++i) {
    const Task& task = tasks_[i];
    if (task.fate != Fate::kUsed) continue;
    const double share = task.value == 0 ? 0.5 : task.value == 1 ? 1 : 0;
    comparisons.push_back({task.first, task.second, share});
    ++all[task.first].outcomes[task.value == 0 ? 2 : task.value == 1 ? 0 : 1];
    ++all[task.second].outcomes[task.value == 0 ? 2 : task.value == 1 ? 1 : 0];
  }
  // Documents of which nothing is known have no label, and do not stretch the others' scale.
  std::vector<size_t> number(count);
  std::vector<Label> labels;
  for (size_t d = 0; d < count; ++d) {
    number[d] = labels.size();
    if (all[d].outcomes == std::array<int64_t, 3>{}) continue;
    labels.push_back(all[d]);
    labels.back().document = d;
  }
  for (Comparison& c : comparisons) c.first = number[c.first], c.second = number[c.second];
  const auto strengths = fit_strengths(labels.size(), comparisons);
  const auto scores = scores_of_strengths(strengths);
  for (size_t i = 0; i < labels.size(); ++i) {
    labels[i].strength = strengths[i];
    labels[i].score = labels[i].consensus = scores[i];
  }
  return labels;
}

std::vector<Labelling::Label> Labelling::labels_of(size_t list) const {
  return options_.judge == Judge::kPoints ? point_labels(list) : pair_labels(list);
}

void Labelling::write(const std::function<Completion(int64_t)>& completion_of,
                      const std::function<void(const std::string&)>& line) const {
  const text::AnswerParser parser(max_value());
  for (size_t l = 0; l < lists_.size(); ++l)
    for (const Label& label : labels_of(l)) {
      const auto& document = lists_[l].candidates[label.document].document;
      base::OrderedJson json;
      json["qid"] = lists_[l].query.id;
      json["docid"] = document.id;
      json["query"] = lists_[l].query.text;
      json["text"] = document.text;
      json["instruction"] = options_.instruction;
      if (options_.judge == Judge::kPoints) {
        json["score"] = static_cast<int>(label.score);
        const Completion completion = completion_of(label.kept);
        const auto answer = parser.parse_reply(completion.reasoning, completion.content);
        ERANK_CHECK(answer && answer->value == label.score);
        if (std::string thought = text::AnswerParser::without_tags(answer->reasoning);
            !thought.empty())
          json["thought"] = std::move(thought);
        json["consensus"] = label.consensus;
        json["scores"] = label.scores;
      } else {
        json["score"] = label.score;
        json["strength"] = label.strength;
        json["wins"] = label.outcomes[0];
        json["losses"] = label.outcomes[1];
        json["ties"] = label.outcomes[2];
      }
      line(base::dump_json(json));
    }
}

LabelReport Labelling::report() const {
  LabelReport r = counted_;
  r.queries = std::ssize(lists_);
  r.requests = num_requests();
  for (const Task& task : tasks_) {
    r.failed += task.fate == Fate::kFailed;
    r.too_long += task.fate == Fate::kTooLong;
    r.unformatted += task.fate == Fate::kUnformatted;
    r.used += task.fate == Fate::kUsed;
    r.ties += options_.judge == Judge::kPairs && task.fate == Fate::kUsed && task.value == 0;
  }
  r.answered = r.used + r.too_long + r.unformatted;
  std::vector<double> scores;
  double deviations = 0;
  for (size_t l = 0; l < lists_.size(); ++l) {
    r.pairs += std::ssize(lists_[l].candidates);
    for (const Label& label : labels_of(l)) {
      ++r.labelled;
      ++r.histogram[rounded(label.score)];
      scores.push_back(label.score);
      if (label.scores.size() < 2) continue;
      ++r.sampled_pairs;
      const double deviation = deviation_of(label.scores);
      deviations += deviation;
      r.unanimous += deviation == 0;
    }
  }
  if (r.labelled > 0) r.mean = mean_of(scores), r.deviation = deviation_of(scores);
  if (r.sampled_pairs > 0) r.sample_deviation = deviations / static_cast<double>(r.sampled_pairs);
  return r;
}

data::Run Labelling::run(Scores scores) const {
  data::Run run;
  for (size_t l = 0; l < lists_.size(); ++l) {
    std::vector<data::Hit> hits;
    bool complete = true;
    for (const Label& label : labels_of(l)) {
      const auto& candidate = lists_[l].candidates[label.document];
      complete = complete && (scores != Scores::kFirstStage || candidate.score);
      hits.push_back({candidate.document.id, scores == Scores::kLabel ? label.score
                                             : scores == Scores::kConsensus
                                                 ? label.consensus
                                                 : candidate.score.value_or(0)});
    }
    if (hits.empty() || !complete) continue;
    // Labels tie often; ties keep the first stage's order, as in a reranking.
    std::stable_sort(hits.begin(), hits.end(),
                     [](const data::Hit& a, const data::Hit& b) { return a.score > b.score; });
    for (size_t i = 0; i < hits.size(); ++i) hits[i].score = -static_cast<double>(i);
    run.qids.push_back(lists_[l].query.id);
    run.hits[lists_[l].query.id] = std::move(hits);
  }
  return run;
}

}  // namespace erank::synth
