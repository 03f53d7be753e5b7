#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <unordered_map>
#include <unordered_set>

#include "cli/checks.h"
#include "cli/doubts.h"
#include "cli/first_stage.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/text_table.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/rank/result_json.h"
#include "erank/retrieve/bm25.h"

namespace erank::cli {
namespace {

struct SearchFlags {
  ModelFlags model;
  std::string index, query, query_weights = "counts";
  int top = 20, show = 10;
  bool think = false, json = false;
};

constexpr size_t kTextLines = 5, kIndent = 4;

bool is_bold_terminal() {
  const char* terminal = std::getenv("TERM");
  return ::isatty(STDOUT_FILENO) && terminal && std::string_view(terminal) != "dumb";
}

// Finds the query's words in texts, as the index finds them.
class QueryWords {
 public:
  QueryWords(const retrieve::Index& index, std::string_view query) : analyzer_(index.analyzer()) {
    analyzer_.analyze(query,
                      [&](std::string_view term, std::string_view) { terms_.emplace(term); });
  }
  std::vector<Mark> find(std::string_view text) {
    std::vector<Mark> marks;
    analyzer_.analyze(text, [&](std::string_view term, std::string_view written) {
      if (!terms_.contains(std::string(term))) return;
      const auto begin = static_cast<size_t>(written.data() - text.data());
      marks.push_back({begin, begin + written.size()});
    });
    return marks;
  }

 private:
  retrieve::Analyzer analyzer_;
  std::unordered_set<std::string> terms_;
};

// None when the user interrupts.
std::optional<rank::Ranking> rerank(const SearchFlags& flags, rank::RankRequest request,
                                    Context& context) {
  std::atomic<int64_t> done = 0;  // outlives the reranker, whose callback uses it
  const auto num = static_cast<int64_t>(request.passages.size());
  auto reranker = rank::Reranker::load(flags.model.resolved(), context.progress.get());
  auto ticket = reranker->submit(std::move(request), {.on_result = [&](const rank::PassageResult&) {
                                   context.progress->update({"rerank", ++done, num, "pairs", ""});
                                 }});
  while (!ticket.wait_for(std::chrono::milliseconds(100)))
    if (interrupted()) return std::nullopt;
  auto ranking = ticket.get();
  context.progress->finish();
  return ranking;
}

// A result and its text for a person.
std::string shown(const rank::PassageResult& result, size_t rank, const std::string& text,
                  QueryWords& words, size_t width, bool bold) {
  std::string out = padded(std::to_string(rank), 3, true) + " " +
                    padded(formatted("%.2f", result.score), 5, true) + "  " +
                    distribution_bar(result.distribution) + "  " +
                    one_line(result.docid, width > 60 ? width - 50 : 10) +
                    "  (BM25: " + std::to_string(result.index + 1) + ", " +
                    formatted("%.2f", result.first_stage_score.value_or(0)) + ")\n";
  if (!result.reasoning.empty())
    for (const auto& line : wrapped(result.reasoning, {}, width - kIndent - 2, kTextLines, false))
      out += std::string(kIndent, ' ') + "> " + line + "\n";
  const std::string part =
      result.window ? std::string(base::utf8_slice(text, result.window->begin, result.window->end))
                    : text;
  for (const auto& line : wrapped(part, words.find(part), width - kIndent, kTextLines, bold))
    out += std::string(kIndent, ' ') + line + "\n";
  return out + "\n";
}

void run_search(const SearchFlags& flags, Context& context) {
  if (flags.query.empty())
    base::fail(base::ErrorKind::kInvalidInput, "--query", "is empty, expected the query's text");
  Output output("", false, {flags.index});
  const auto index = retrieve::Index::open(flags.index);
  const auto hits = index.search(flags.query, flags.top, query_weights(flags.query_weights));
  if (hits.empty()) {
    warn("no document has a word of the query");
    return;
  }
  rank::RankRequest request{"1", flags.query, {}, {}};
  if (flags.think) request.options.mode = rank::Mode::kThink;
  std::vector<std::string> texts;
  for (const auto& hit : hits) {
    texts.push_back(index.text(hit.docid));
    request.passages.push_back({hit.docid, texts.back(), hit.score});
  }
  const auto ranking = rerank(flags, std::move(request), context);
  if (!ranking) return;
  QueryWords words(index, flags.query);
  const size_t width = output_width();
  const bool bold = is_bold_terminal();
  size_t rank = 0;
  for (const auto& result : ranking->results) {
    if (++rank > static_cast<size_t>(flags.show)) break;
    const std::string& text = texts[result.index];
    if (flags.json) {
      auto line = rank::to_json(ranking->qid, static_cast<int64_t>(rank), result);
      line["text"] = text;
      output.write(base::dump_json(line) + "\n");
    } else {
      output.write(shown(result, rank, text, words, width, bold));
    }
  }
  output.commit();
  Doubts doubts;
  doubts.note(*ranking);
  if (!flags.json) doubts.tell();
  for (const auto& failed : ranking->failed) warn(failed.error->message);
  if (!ranking->failed.empty())
    base::fail(base::ErrorKind::kExhausted, "search", ranking->failed.size(), " of ", hits.size(),
               " documents could not be scored and are left out");
}

}  // namespace

void add_search(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand("search", "Find and rerank documents of an index for one query");
  auto flags = std::make_shared<SearchFlags>();
  SearchFlags& f = *flags;
  verb->footer("Example: erank search --index corpus.bm25 --query 'why is the sky blue'");
  verb->add_option("--index", f.index, "an index that `erank index` made")->required();
  verb->add_option("--query", f.query, "the query's text")->required();
  verb->add_option("--top", f.top, "BM25's best documents, which the model scores")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  add_query_weights(*verb, f.query_weights);
  verb->add_option("--show", f.show, "results that are printed")
      ->check(positive_number())
      ->capture_default_str();
  f.model.add_to(*verb);
  verb->add_flag("--think", f.think, "let the model write its reasoning first");
  verb->add_flag("--json", f.json,
                 "a line a result, as `erank rerank --format jsonl`, with its text");
  verb->callback(
      [flags, &context] { context.run = [flags, &context] { run_search(*flags, context); }; });
}

}  // namespace erank::cli
