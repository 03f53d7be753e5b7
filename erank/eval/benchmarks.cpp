#include "erank/eval/benchmarks.h"

#include <array>

#include "erank/base/error.h"
#include "erank/eval/measures.h"
#include "erank/eval/p_mrr.h"

namespace erank::eval {
namespace {

// A text is the paper's own, its spelling too.
constexpr std::string_view kPassage = "Given a query, retrieval relevant passage.";
constexpr std::string_view kFollowIr =
    "Retrieval the relevant passage for the given query. Be careful about the extra requirements "
    "about relevance in the query.";
constexpr std::string_view kAops =
    "We want to find different but similar math problems to the query. A document is relevant if "
    "it uses the same class of functions and shares any overlapping techniques.";
constexpr std::string_view kLeetcode =
    "I am looking to find different problems that share similar data structures (of any kind) or "
    "algorithms (e.g. DFS, DP, sorting, traversals, etc.). I am looking for problems that share "
    "one or both of these similarities to the query. Does the passage below share any "
    "similarities? e.g. if there was a textbook on leetcode problems, this would be in the same "
    "book even though it could be in a different chapter.";
constexpr std::string_view kPony =
    "I will use the programming language pony. But to solve the problem above, I need to know "
    "things about pony. A passage is relevant if it contains docs that match any part (even basic "
    "parts) of the code I will have to write for the above program.";
constexpr std::string_view kTheoremqa =
    "We want to find a document which uses the same mathematical process as the query. A document "
    "is relevant if it uses the same mathematical process as the query.";
constexpr std::string_view kAnswers =
    "A document is relevant if it contains information that helps answer or address the query. A "
    "document is not relevant if it doesn't contain information that helps answer the query, even "
    "if it mentions similar topics.";

// The same systems, in the paper's order, by their means.
std::vector<PaperRow> rows(const std::array<double, 9>& means) {
  constexpr std::array<std::string_view, 9> kSystems = {"BM25",
                                                        "Rank-R1-7B (listwise)",
                                                        "Rearank-7B (listwise)",
                                                        "JudgeRank-8B",
                                                        "Rank1-7B",
                                                        "QwQ-32B, same prompt",
                                                        "ERank-4B",
                                                        "ERank-14B",
                                                        "ERank-32B"};
  std::vector<PaperRow> out;
  for (size_t i = 0; i < means.size(); ++i) out.push_back({kSystems[i], means[i]});
  return out;
}

std::vector<Benchmark> make_benchmarks() {
  std::vector<Benchmark> all(4);
  all[0] = {.name = "beir",
            .title = "BEIR",
            .tasks = {},
            .columns = {"nDCG@10"},
            .drops_identical_ids = true,
            .paper = rows({40.8, 49.0, 49.0, 39.1, 44.2, 47.5, 44.8, 47.1, 47.7})};
  all[1] = {.name = "trec-dl",
            .title = "TREC DL",
            .tasks = {"dl19", "dl20"},
            .columns = {"nDCG@10"},
            .paper = rows({49.3, 70.0, 72.5, 62.6, 67.1, 66.1, 68.9, 67.1, 68.1})};
  all[1].paper[6].tasks = {{"dl19", 71.1}, {"dl20", 66.7}};
  all[2] = {.name = "bright",
            .title = "BRIGHT",
            .tasks = {"biology", "earth_science", "economics", "psychology", "robotics",
                      "stackoverflow", "sustainable_living", "leetcode", "pony", "aops",
                      "theoremqa_questions", "theoremqa_theorems"},
            .columns = {"nDCG@10"},
            .query_weights = "bm25",
            .has_exclusions = true,
            .paper = rows({13.7, 15.7, 17.4, 17.0, 18.2, 23.2, 22.7, 23.1, 24.4})};
  all[3] = {.name = "followir",
            .title = "FollowIR",
            .tasks = {"core17", "robust04", "news21"},
            .columns = {"p-MRR", "MAP@1000, nDCG@5"},
            .top = 1000,
            .has_pairs = true,
            .paper = rows({0, 3.6, 2.3, 9.9, 9.1, 14.1, 11.0, 10.3, 12.1})};
  return all;
}

}  // namespace

const Benchmark& find_benchmark(std::string_view name) {
  static const std::vector<Benchmark> all = make_benchmarks();
  for (const Benchmark& benchmark : all)
    if (benchmark.name == name) return benchmark;
  base::fail(base::ErrorKind::kInvalidInput, "benchmark", "'", name,
             "', expected beir, trec-dl, bright or followir");
}

std::string_view instruction_of(const Benchmark& benchmark, std::string_view task) {
  if (benchmark.name == "followir") return kFollowIr;
  if (benchmark.name != "bright") return kPassage;
  if (task == "aops") return kAops;
  if (task == "leetcode") return kLeetcode;
  if (task == "pony") return kPony;
  if (task.starts_with("theoremqa")) return kTheoremqa;
  return kAnswers;
}

std::vector<double> score_task(const Benchmark& benchmark, std::string_view task,
                               const TaskJudgements& judgements, const data::Run& run) {
  const auto mean = [&](const char* measure) {
    return evaluate(judgements.qrels, run, parse_measures({measure}), {.complete = true})
        .summary.at(0);
  };
  if (!benchmark.has_pairs) return {mean("nDCG@10")};
  return {p_mrr(run, judgements.changed).mean, mean(task == "news21" ? "nDCG@5" : "AP@1000")};
}

}  // namespace erank::eval
