#include <chrono>
#include <unordered_map>

#include "cli/checks.h"
#include "cli/doubts.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/progress_line.h"
#include "cli/text_table.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/installed.h"
#include "erank/base/threads.h"
#include "erank/data/check.h"
#include "erank/data/records.h"
#include "erank/eval/measures.h"
#include "erank/eval/report.h"
#include "erank/rank/model_files.h"
#include "erank/retrieve/bm25.h"

namespace erank::cli {
namespace {

struct DemoFlags {
  ModelFlags model;
  std::string beir, split = "test";
  int top = 20, show = 30, thoughts = 3;
};

using Clock = std::chrono::steady_clock;

constexpr double kFirstStageWeight = 0.2;  // the paper's blend

std::string demo_folder() {
  if (const std::string folder = base::find_installed("examples/demo"); !folder.empty())
    return folder;
  base::fail(base::ErrorKind::kNotFound, "demo",
             "the demo's collection is not beside this program; give --beir DIR");
}

eval::Evaluation ndcg10(const data::Qrels& qrels, const data::Run& run) {
  return eval::evaluate(qrels, run, eval::parse_measures({"ndcg_cut.10"}));
}

class Demo {
 public:
  Demo(const DemoFlags& flags, Context& context)
      : flags_(flags), context_(context), output_("", false) {}

  void run() {
    read();
    auto begin = Clock::now();
    const auto index = retrieve::Index::build(documents_, base::num_processors());
    const auto hits = index.search_all(queries_, flags_.top, base::num_processors());
    const double retrieve_s = seconds_since(begin);
    std::atomic<int64_t> done = 0;  // these outlive the reranker, whose callbacks use them
    int64_t pairs = 0;
    auto reranker = rank::Reranker::load(flags_.model.resolved(), context_.progress.get());
    say(base::str("Model ", reranker->model_name(), " (", reranker->precision_name(), "), ",
                  documents_.size(), " passages, ", queries_.size(), " queries, the best ",
                  flags_.top, " of BM25 reranked.\n\n"));

    begin = Clock::now();
    std::vector<rank::Ticket> tickets;
    for (const auto& list : hits) pairs += static_cast<int64_t>(list.size());
    for (size_t q = 0; q < queries_.size(); ++q)
      tickets.push_back(
          reranker->submit(request(q, hits[q]), {.on_result = [&](const rank::PassageResult& r) {
                             if (!r.error)
                               context_.progress->update({"rerank", ++done, pairs, "pairs", ""});
                           }}));
    std::vector<rank::Ranking> rankings;
    for (auto& ticket : tickets) {
      while (!ticket.wait_for(std::chrono::milliseconds(100)))
        if (interrupted()) return;
      rankings.push_back(ticket.get());
      if (const auto& failed = rankings.back().failed; !failed.empty())
        base::fail(base::ErrorKind::kExhausted, "demo", failed[0].error->message);
    }
    const double rerank_s = seconds_since(begin);
    const auto stats = reranker->stats().engine;
    context_.progress->finish();

    for (size_t q = 0; q < std::min<size_t>(rankings.size(), static_cast<size_t>(flags_.show)); ++q)
      say(side_by_side(q, hits[q], rankings[q]));
    think(*reranker, hits);
    say(figures(hits, rankings));
    Doubts doubts;
    for (const auto& ranking : rankings) doubts.note(ranking);
    doubts.tell();
    say(base::str("\n", pairs, " pairs in ", formatted("%.1f", rerank_s),
                  " s: ", formatted("%.1f", static_cast<double>(pairs) / rerank_s), " pairs/s, ",
                  formatted("%.0f", static_cast<double>(stats.computed_tokens) / rerank_s),
                  " tokens/s computed, ", stats.cached_tokens, " prompt tokens shared; BM25 took ",
                  formatted("%.2f", retrieve_s), " s\n"));
  }

 private:
  void read() {
    const auto folder = data::find_beir(flags_.beir.empty() ? demo_folder() : flags_.beir);
    const auto split = folder.qrels.find(flags_.split);
    if (split == folder.qrels.end() || folder.queries.empty() || folder.corpus.empty())
      base::fail(base::ErrorKind::kNotFound, "demo", flags_.beir,
                 ": expected corpus.jsonl, queries.jsonl and qrels/", flags_.split, ".tsv");
    rank::refuse_inputs({"-"}, {folder.corpus, folder.queries, split->second});
    data::ReadNotes notes, query_notes, qrels_notes;
    documents_ = data::read_documents(folder.corpus, context_.progress.get(), {.notes = &notes});
    qrels_ = data::read_qrels(split->second, &qrels_notes);
    auto queries = data::read_queries(folder.queries, {.notes = &query_notes});
    tell(folder.corpus, notes);
    tell(folder.queries, query_notes);
    tell(split->second, qrels_notes);
    warn_of_lost(split->second, queries);
    for (auto& query : queries)
      if (qrels_.grades.count(query.id)) queries_.push_back(std::move(query));
    if (queries_.empty())
      base::fail(base::ErrorKind::kInvalidInput, "demo", split->second,
                 " judges none of the queries");
    for (const auto& document : documents_) by_id_.emplace(document.id, &document);
  }

  void warn_of_lost(const std::string& path, const std::vector<data::Query>& queries) const {
    data::IdSet qids, docids;
    for (const auto& query : queries) qids.insert(query.id);
    for (const auto& document : documents_) docids.insert(document.id);
    for (const auto& line : data::told(path, data::find_lost(qrels_, &qids, &docids))) warn(line);
  }

  rank::RankRequest request(size_t q, std::span<const data::Hit> hits) const {
    rank::RankRequest r{queries_[q].id, queries_[q].text, {}, {}};
    for (const auto& hit : hits)
      r.passages.push_back({hit.docid, by_id_.at(hit.docid)->text, hit.score});
    return r;
  }

  std::string grade_mark(size_t q, const std::string& docid) const {
    const auto& grades = qrels_.grades.at(queries_[q].id);
    const auto found = grades.find(docid);
    return found == grades.end() || found->second <= 0 ? " " : std::to_string(found->second);
  }

  // The first three before and after; after each the grade that the judgements give it.
  std::string side_by_side(size_t q, const std::vector<data::Hit>& hits,
                           const rank::Ranking& ranking) const {
    const size_t width = output_width(), column = (width - 34) / 2;
    const std::string qid = one_line(queries_[q].id, 24);
    std::string out = qid + "  " + one_line(queries_[q].text, width - characters(qid) - 2) + "\n";
    out += "   " + padded("before (BM25)", column) + " grade  " + padded("after", column) +
           " grade  score  0 … 10\n";
    for (size_t i = 0; i < std::min<size_t>(3, hits.size()); ++i) {
      const auto& after = ranking.results[i];
      out += " " + std::to_string(i + 1) + " " +
             padded(one_line(by_id_.at(hits[i].docid)->text, column), column) + "   " +
             grade_mark(q, hits[i].docid) + "    " +
             padded(one_line(by_id_.at(after.docid)->text, column), column) + "   " +
             grade_mark(q, after.docid) + padded(formatted("%.2f", after.score), 9, true) + "  " +
             distribution_bar(after.distribution) + "\n";
    }
    return out + "\n";
  }

  // What the model writes when it is let to think, for the first passage of a few queries.
  void think(rank::Reranker& reranker, const std::vector<std::vector<data::Hit>>& hits) {
    const size_t n = std::min<size_t>(queries_.size(), static_cast<size_t>(flags_.thoughts));
    if (n == 0) return;
    std::vector<rank::Ticket> tickets;
    for (size_t q = 0; q < n; ++q) {
      auto r = request(q, std::span(hits[q]).first(std::min<size_t>(1, hits[q].size())));
      r.options.mode = rank::Mode::kThink;
      tickets.push_back(reranker.submit(std::move(r)));
    }
    say("With --think the model writes its reasoning first; BM25's first passage of the first "
        "queries:\n");
    for (size_t q = 0; q < n; ++q)
      for (const auto& result : tickets[q].get().results)
        say("  " + padded(one_line(queries_[q].id, 24), 10) + " answer " +
            std::to_string(result.integer) + "  " + distribution_bar(result.distribution) + "  " +
            one_line(result.reasoning, output_width() - 36) + "\n");
    say("\n");
  }

  std::string figures(const std::vector<std::vector<data::Hit>>& hits,
                      const std::vector<rank::Ranking>& rankings) const {
    data::Run bm25, model, hybrid;
    for (size_t q = 0; q < queries_.size(); ++q) {
      if (hits[q].empty()) continue;  // as in the file of a run, which has no line of it
      const std::string& qid = queries_[q].id;
      for (auto* run : {&bm25, &model, &hybrid}) run->qids.push_back(qid);
      bm25.hits[qid] = hits[q];
      for (const auto& r : rankings[q].results) model.hits[qid].push_back({r.docid, r.score});
      const auto blended =
          rank::make_ranking(qid, rankings[q].results, {.hybrid_weight = kFirstStageWeight});
      for (const auto& r : blended.results) hybrid.hits[qid].push_back({r.docid, r.score});
    }
    if (const auto missing = eval::missing_topics(ndcg10(qrels_, bm25)); !missing.empty())
      warn(missing);
    std::string out = "nDCG@10\n";
    const auto line = [&](const std::string& name, const data::Run& run) {
      const double value = ndcg10(qrels_, run).summary.at(0);
      out += "  " + padded(name, 34) + formatted("%.4f", value) + "  ";
      for (int i = 0; i < static_cast<int>(value * 40 + 0.5); ++i) out += "█";
      out += "\n";
    };
    line("BM25", bm25);
    line("model", model);
    line(base::str("hybrid (", kFirstStageWeight, " BM25 + ", 1 - kFirstStageWeight, " model)"),
         hybrid);
    return out;
  }

  // Shown at once, also where stdout is a pipe.
  void say(const std::string& text) {
    output_.write(text);
    output_.commit();
  }
  static double seconds_since(Clock::time_point begin) {
    return std::chrono::duration<double>(Clock::now() - begin).count();
  }

  const DemoFlags& flags_;
  Context& context_;
  Output output_;
  std::vector<data::Document> documents_;
  std::vector<data::Query> queries_;
  data::Qrels qrels_;
  std::unordered_map<std::string, const data::Document*> by_id_;
};

}  // namespace

void add_demo(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand(
      "demo", "Retrieve, rerank and measure a small collection, and show the difference");
  auto flags = std::make_shared<DemoFlags>();
  DemoFlags& f = *flags;
  verb->footer("Example:\n  erank demo --beir nfcorpus --show 5");
  verb->add_option("--beir", f.beir, "another BEIR folder (default: the demo's own collection)");
  verb->add_option("--split", f.split, "which judgements of the folder")->capture_default_str();
  verb->add_option("--top", f.top, "candidates of a query")
      ->check(positive_number())
      ->capture_default_str();
  verb->add_option("--show", f.show, "rankings that are printed")
      ->check(non_negative_number())
      ->capture_default_str();
  verb->add_option("--thoughts", f.thoughts, "queries whose reasoning is shown")
      ->check(non_negative_number())
      ->capture_default_str();
  f.model.add_to(*verb);
  verb->callback(
      [flags, &context] { context.run = [flags, &context] { Demo(*flags, context).run(); }; });
}

}  // namespace erank::cli
