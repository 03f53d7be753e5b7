#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>

#include "cli/benchmark_candidates.h"
#include "cli/benchmark_data.h"
#include "cli/checks.h"
#include "cli/first_stage.h"
#include "cli/made_of.h"
#include "cli/output.h"
#include "cli/rerank.h"
#include "cli/text_table.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/threads.h"
#include "erank/data/results.h"
#include "erank/eval/benchmarks.h"
#include "erank/rank/checkpoint.h"
#include "erank/rank/model_files.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using base::Json;
using base::OrderedJson;

struct BenchmarkFlags {
  RerankFlags rerank;  // the options that say how pairs are scored
  std::string name, data, out, split = "test", query_weights;
  int top = 0, limit = 0;
  bool json = false, resume = false, overwrite = false;
};

// Of one task, by the benchmark's columns.
struct TaskScores {
  TaskFiles files;
  std::string instruction;
  int64_t num_queries = 0, num_pairs = 0;
  std::vector<double> first_stage;  // none: the candidates have no scores
  std::vector<double> reranked;
  std::optional<double> pairs_per_second;
};

// The scores that the lines have, whatever their order; what was not scored comes last.
data::Run run_of(const data::Results& results) {
  data::Run run{results.qids, {}, ""};
  for (const auto& [qid, list] : results.results) {
    double least = 0;
    for (const auto& result : list) least = std::min(least, result.score.value_or(0));
    for (const auto& result : list)
      run.hits[qid].push_back({result.docid, result.score ? * result.score : least -= 1});
  }
  return run;
}

class Benchmark {
 public:
  Benchmark(const BenchmarkFlags& flags, Context& context)
      : flags_(flags),
        context_(context),
        benchmark_(eval::find_benchmark(flags.name)),
        tasks_(find_tasks(benchmark_, flags.data, flags.split)),
        results_file_((fs::path(flags.out) / "results.json").string()) {}

  void run() {
    check_scoring_options(flags_.rerank);
    model_ = rank::find_checkpoint(flags_.rerank.model.options.model).name;
    check_folder();
    for (const TaskFiles& files : tasks_) {
      auto scores = run_task(files);
      if (!scores) return;
      scores_.push_back(std::move(*scores));
      OrderedJson results = to_json();
      // What is not done again yet.
      for (const Json& task : before_.value("tasks", Json::array()))
        if (is_to_come(task)) results["tasks"].push_back(OrderedJson(task));
      base::write_file_atomic(results_file_, base::dump_json(results) + "\n");
    }
    Output output("", false);
    output.write(flags_.json ? base::dump_json(to_json()) + "\n" : table());
    output.commit();
    if (num_failed_ > 0)
      base::fail(ErrorKind::kExhausted, "benchmark", num_failed_,
                 " pairs could not be scored and are last in their rankings",
                 can_retry_ ? "; --resume tries them again" : "");
  }

 private:
  std::string file(const TaskFiles& files, const char* name) const {
    return (fs::path(flags_.out) / files.task / name).string();
  }

  // Whether a task of an earlier run's results is one of this run that is not done yet.
  bool is_to_come(const Json& task) const {
    const auto is_named = [&](const std::string& name) {
      return task.is_object() && task.value("task", Json()) == name;
    };
    return std::none_of(scores_.begin(), scores_.end(),
                        [&](const TaskScores& done) { return is_named(done.files.task); }) &&
           std::any_of(tasks_.begin(), tasks_.end(),
                       [&](const TaskFiles& files) { return is_named(files.task); });
  }

  void check_folder() {
    std::error_code error;
    fs::create_directories(flags_.out, error);
    if (error)
      base::fail(ErrorKind::kInvalidInput, "--out", flags_.out,
                 ": cannot make this folder: ", error.message());
    for (const TaskFiles& files : tasks_)
      for (const auto& data : files.all())
        if (fs::weakly_canonical(data).parent_path() ==
            fs::weakly_canonical(fs::path(flags_.out) / files.task))
          base::fail(ErrorKind::kInvalidInput, "--out", flags_.out, ": the task ", files.task,
                     " would be written into its data folder; choose another folder");
    if (base::file_exists(results_file_)) {
      if (!flags_.resume && !flags_.overwrite)
        base::fail(ErrorKind::kInvalidInput, "--out", results_file_,
                   " exists; --resume goes on where it stopped, --overwrite starts anew");
      before_ = base::parse_json(base::read_file(results_file_), results_file_);
      if (!before_.is_object() || !before_.contains("benchmark") ||
          !before_.value("tasks", Json()).is_array())
        base::fail(ErrorKind::kInvalidInput, "--out", results_file_,
                   " is no file of erank benchmark; move it away");
      if (flags_.resume && before_["benchmark"] != flags_.name)
        base::fail(ErrorKind::kInvalidInput, "--resume", results_file_, " is of the benchmark ",
                   base::dump_json(before_["benchmark"]), "; choose another folder");
      if (flags_.overwrite) before_ = Json::object();
    }
    if (flags_.resume || flags_.overwrite) return;
    for (const TaskFiles& files : tasks_)
      for (const char* name : {"made.json", "candidates.jsonl", "reranked.jsonl"})
        if (base::file_exists(file(files, name)))
          base::fail(ErrorKind::kInvalidInput, "--out", file(files, name),
                     " exists; --resume goes on where it stopped, --overwrite starts anew");
  }

  // By which candidates are searched, where the data folder has none.
  std::string weights() const {
    return flags_.query_weights.empty() ? std::string(benchmark_.query_weights)
                                        : flags_.query_weights;
  }
  int top() const { return flags_.top > 0 ? flags_.top : benchmark_.top; }

  // None when the user interrupts.
  std::optional<TaskScores> run_task(const TaskFiles& files) {
    TaskScores scores;
    scores.files = files;
    scores.instruction = flags_.rerank.instruction.empty()
                             ? std::string(eval::instruction_of(benchmark_, files.task))
                             : flags_.rerank.instruction;
    const TaskQueries task = read_task(benchmark_, files, flags_.limit);
    const std::string candidates = file(files, "candidates.jsonl");
    if (!prepare(files, task, candidates)) return std::nullopt;

    RerankFlags f = flags_.rerank;
    f.instruction = scores.instruction;
    f.input.candidates = candidates;
    f.input.top = top();
    f.format = "jsonl";
    f.out = file(files, "reranked.jsonl");
    f.resume = !flags_.overwrite, f.overwrite = flags_.overwrite;
    f.is_part = true;
    f.loaded = &loaded_;
    const RerankDone done = rerank(f, context_);
    if (interrupted()) return std::nullopt;
    num_failed_ += done.num_failed;
    can_retry_ |= done.can_retry;

    data::Run first_stage;
    bool has_scores = true;
    // Lists keep the order that BM25 gave equal scores, as its runs do; a run has trec_eval's.
    const bool is_run = files.candidates.empty() && !files.run.empty();
    for (const auto& list : data::read_candidates(candidates)) {
      if (list.candidates.empty()) continue;
      ++scores.num_queries;
      scores.num_pairs += std::ssize(list.candidates);
      first_stage.qids.push_back(list.query.id);
      auto below = static_cast<double>(list.candidates.size());
      for (const auto& candidate : list.candidates) {
        has_scores &= candidate.score.has_value();
        first_stage.hits[list.query.id].push_back(
            {candidate.document.id, is_run ? candidate.score.value_or(0) : below--});
      }
    }
    if (has_scores)
      scores.first_stage = eval::score_task(benchmark_, files.task, task.judgements, first_stage);
    scores.reranked = eval::score_task(benchmark_, files.task, task.judgements,
                                       run_of(data::read_results(f.out)));
    if (done.num_scored > 0) {
      scores.pairs_per_second = static_cast<double>(done.num_scored) / std::max(done.seconds, 1e-9);
    } else {
      scores.pairs_per_second = speed_before(files.task);
    }
    return scores;
  }

  // Makes the candidates, unless they are there and of the same.
  bool prepare(const TaskFiles& files, const TaskQueries& task, const std::string& candidates) {
    const std::string made_file = file(files, "made.json");
    std::error_code error;
    fs::create_directories(fs::path(candidates).parent_path(), error);
    Json made = {{"benchmark", flags_.name},
                 {"split", flags_.split},
                 {"top", top()},
                 {"limit", flags_.limit},
                 {"query_weights", weights()},
                 {"data", rank::files_digest(files.all())}};
    if (flags_.resume && base::file_exists(made_file)) {
      Json before = base::parse_json(base::read_file(made_file), made_file);
      if (!before.is_object())
        base::fail(ErrorKind::kCorrupt, "--resume", made_file,
                   ": expected an object; --overwrite makes it anew");
      const Json digest = before.value("candidates", Json());
      before.erase("candidates");
      if (const std::string what = difference(before, made); !what.empty())
        base::fail(ErrorKind::kInvalidInput, "--resume", made_file, ": ", what,
                   "; --overwrite makes it anew");
      if (base::file_exists(candidates) && digest == rank::files_digest({candidates})) return true;
    }
    CandidateOptions options{top(), flags_.rerank.model.options.threads, file(files, "corpus.bm25"),
                             query_weights(weights())};
    if (options.threads <= 0) options.threads = base::num_processors();
    if (!write_candidates(benchmark_, files, task, options, candidates, *context_.progress))
      return false;
    made["candidates"] = rank::files_digest({candidates});
    base::write_file_atomic(made_file, base::dump_json(made) + "\n");
    return true;
  }

  std::optional<double> speed_before(const std::string& name) const {
    for (const Json& task : before_.value("tasks", Json::array()))
      if (task.is_object() && task.value("task", Json()) == name &&
          task.value("pairs_per_second", Json()).is_number())
        return task["pairs_per_second"].get<double>();
    return std::nullopt;
  }

  // Whether a task is one of those that the benchmark's mean is of.
  bool in_mean(const TaskScores& scores) const {
    return benchmark_.tasks.empty() ||
           std::count(benchmark_.tasks.begin(), benchmark_.tasks.end(), scores.files.task) > 0;
  }
  int64_t tasks_in_mean() const {
    return std::count_if(scores_.begin(), scores_.end(),
                         [this](const TaskScores& scores) { return in_mean(scores); });
  }

  // Over the tasks; nullopt when one of them has none.
  std::optional<double> mean(std::vector<double> TaskScores::*values, size_t column) const {
    double sum = 0;
    for (const auto& scores : scores_) {
      if (!in_mean(scores)) continue;
      if ((scores.*values).empty()) return std::nullopt;
      sum += (scores.*values)[column];
    }
    const int64_t n = tasks_in_mean();
    if (n == 0) return std::nullopt;
    return sum / static_cast<double>(n);
  }

  OrderedJson to_json() const {
    const auto by_column = [&](const std::vector<double>& values) {
      if (values.empty()) return OrderedJson();
      OrderedJson out = OrderedJson::object();
      for (size_t i = 0; i < values.size(); ++i)
        out[std::string(benchmark_.columns[i])] = values[i];
      return out;
    };
    auto tasks = OrderedJson::array();
    for (const auto& scores : scores_)
      tasks.push_back(
          {{"task", scores.files.task},
           {"queries", scores.num_queries},
           {"pairs", scores.num_pairs},
           {"first_stage", by_column(scores.first_stage)},
           {"reranked", by_column(scores.reranked)},
           {"pairs_per_second",
            scores.pairs_per_second ? OrderedJson(*scores.pairs_per_second) : OrderedJson()},
           {"instruction", scores.instruction},
           {"data", scores.files.all()},
           {"made_of", OrderedJson(read_made_of(file(scores.files, "reranked.jsonl"), "rerank")
                                       .value_or(MadeRecord())
                                       .made_of)}});
    OrderedJson means = {{"tasks", tasks_in_mean()}};
    for (const auto& [name, values] : {std::pair{"first_stage", &TaskScores::first_stage},
                                       {"reranked", &TaskScores::reranked}}) {
      OrderedJson& row = means[name] = OrderedJson::object();
      for (size_t i = 0; i < benchmark_.columns.size(); ++i) {
        const auto value = mean(values, i);
        row[std::string(benchmark_.columns[i])] = value ? OrderedJson(*value) : OrderedJson();
      }
    }
    auto paper = OrderedJson::array();
    for (const auto& row : benchmark_.paper) {
      OrderedJson entry = {{"system", row.system}, {"mean", row.mean}};
      for (const auto& [task, value] : row.tasks) entry["tasks"][std::string(task)] = value;
      paper.push_back(std::move(entry));
    }
    return {{"benchmark", flags_.name},
            {"model", model_},
            {"candidates", top()},
            {"query_weights", weights()},
            {"limit", flags_.limit > 0 ? OrderedJson(flags_.limit) : OrderedJson()},
            {"tasks", std::move(tasks)},
            {"mean", std::move(means)},
            {"tasks_of_paper_mean",
             benchmark_.tasks.empty() ? OrderedJson() : OrderedJson(benchmark_.tasks.size())},
            {"paper_times_100", std::move(paper)}};
  }

  std::string table() const {
    using Row = std::vector<std::string>;
    const auto number = [](std::optional<double> value) {
      return value ? formatted("%.1f", 100 * *value) : std::string("-");
    };
    const auto at = [](const std::vector<double>& values, size_t i) {
      return i < values.size() ? std::optional(values[i]) : std::nullopt;
    };
    const size_t columns = benchmark_.columns.size();
    std::vector<Row> rows(1, Row{"task", "queries"});
    for (const auto column : benchmark_.columns) {
      const std::string of = columns > 1 ? " " + std::string(column) : "";
      rows[0].push_back("first stage" + of), rows[0].push_back("model" + of);
    }
    rows[0].push_back("pairs/s");
    for (const auto& scores : scores_) {
      Row row = {one_line(scores.files.task, 24), std::to_string(scores.num_queries)};
      for (size_t i = 0; i < columns; ++i)
        row.insert(row.end(), {number(at(scores.first_stage, i)), number(at(scores.reranked, i))});
      row.push_back(scores.pairs_per_second ? formatted("%.1f", *scores.pairs_per_second) : "-");
      rows.push_back(std::move(row));
    }
    const std::string of =
        benchmark_.tasks.empty() ? "" : base::str(" of the paper's ", benchmark_.tasks.size());
    Row means = {base::str("mean of ", tasks_in_mean(), of), ""};
    for (size_t i = 0; i < columns; ++i)
      means.insert(means.end(), {number(mean(&TaskScores::first_stage, i)),
                                 number(mean(&TaskScores::reranked, i))});
    rows.push_back(std::move(means));
    rows.push_back({});
    rows.push_back({base::str("the paper's means of ", benchmark_.title,
                              benchmark_.tasks.empty() ? ", over sets of its own" : "")});
    for (const auto& paper : benchmark_.paper) {
      std::string name = "  " + std::string(paper.system), tasks;
      for (const auto& [task, value] : paper.tasks)
        tasks += base::str(tasks.empty() ? " (" : ", ", task, " ", formatted("%.1f", value));
      if (!tasks.empty()) name += tasks + ")";
      const std::string value = formatted("%.1f", paper.mean);
      const bool first = paper.system == "BM25";
      rows.push_back({name, "", first ? value : "", first ? "" : value});
    }

    std::vector<size_t> widths;
    for (const Row& row : rows)
      for (size_t i = 0; i < row.size() && row.size() > 1; ++i) {
        widths.resize(std::max(widths.size(), i + 1));
        widths[i] = std::max(widths[i], characters(row[i]));
      }
    std::string out = base::str(
        benchmark_.title, ", ", benchmark_.columns[0], " x 100: ", model_, " on the first ", top(),
        " candidates",
        flags_.limit > 0 ? base::str(" of at most ", flags_.limit, " queries a task") : "", "\n\n");
    for (const Row& row : rows) {
      std::string line;
      for (size_t i = 0; i < row.size(); ++i)
        line += row.size() == 1 ? row[i] : (i ? "  " : "") + padded(row[i], widths[i], i > 0);
      line.erase(line.find_last_not_of(' ') + 1);
      out += line + "\n";
    }
    return out;
  }

  const BenchmarkFlags& flags_;
  Context& context_;
  const eval::Benchmark& benchmark_;
  std::vector<TaskFiles> tasks_;
  std::string results_file_, model_;
  Json before_ = Json::object();  // an earlier run's results
  std::vector<TaskScores> scores_;
  int64_t num_failed_ = 0;
  bool can_retry_ = false;
  std::shared_ptr<rank::Reranker> loaded_;  // by the first task that needs it
};

}  // namespace

void add_benchmark(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand(
      "benchmark", "Rerank and measure a benchmark from its data folder, beside the paper's rows");
  auto flags = std::make_shared<BenchmarkFlags>();
  BenchmarkFlags& f = *flags;
  verb->add_option("benchmark", f.name, "beir, trec-dl, bright or followir")
      ->check(CLI::IsMember({"beir", "trec-dl", "bright", "followir"}))
      ->required();
  verb->add_option("--data", f.data, "the benchmark's folder, or a task's")->required();
  verb->add_option("--out", f.out,
                   "a folder for the candidates, the rankings and results.json; a killed run goes "
                   "on from it")
      ->required();
  verb->add_option("--split", f.split, "which judgements of a folder qrels")->capture_default_str();
  verb->add_option("--top", f.top, "candidates of a query (default: the paper's, 100 or 1000)")
      ->check(positive_number());
  verb->add_option("--limit", f.limit,
                   "only the first so many queries of each task, for a quick look")
      ->check(positive_number());
  add_query_weights(*verb, f.query_weights);
  verb->get_option("--query-weights")
      ->description(
          "what a word counts where candidates are searched, as in erank retrieve\n"
          "(default: bm25 of bright, as its own baseline does, else counts)");
  add_scoring_options(*verb, f.rerank);
  verb->get_option("--instruction")
      ->description("what relevance means (default: the paper's text for each task)");
  verb->add_flag("--json", f.json, "print what results.json holds instead of the table");
  auto* resume = verb->add_flag("--resume", f.resume, "go on with what --out holds");
  verb->add_flag("--overwrite", f.overwrite, "start anew in --out")->excludes(resume);
  verb->footer(
      "Examples:\n"
      "  erank benchmark beir --data beir/nfcorpus --out nfcorpus.erank --hybrid zscore:0.2\n"
      "  erank benchmark bright --data BRIGHT --out bright.erank --limit 10");
  verb->callback(
      [flags, &context] { context.run = [flags, &context] { Benchmark(*flags, context).run(); }; });
}

}  // namespace erank::cli
