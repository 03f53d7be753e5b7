#include "cli/rerank_output.h"

#include <unistd.h>

#include <algorithm>
#include <vector>

#include "cli/text_table.h"
#include "erank/base/error.h"
#include "erank/data/records.h"
#include "erank/rank/result_json.h"

namespace erank::cli {
namespace {

std::string table(const RerankJob& job, const rank::Ranking& ranking, bool append_tail) {
  const size_t width = output_width();
  size_t id_width = 5;
  bool first_stage = false;
  for (const auto& r : ranking.results) {
    id_width = std::max(id_width, std::min<size_t>(characters(r.docid), 24));
    first_stage |= r.first_stage_score.has_value();
  }
  const std::string qid = one_line(ranking.qid, 24);
  std::string out = "query " + qid + ": " + one_line(job.query, width - 8 - characters(qid)) + "\n";
  out += " rank  " + padded("docid", id_width, false) + "    score  answer   Pr  0 … 10     " +
         (first_stage ? "   first" : "") + "  text\n";
  int64_t rank = 0;
  for (const auto& r : ranking.results) {
    std::string line = padded(std::to_string(++rank), 5, true) + "  " +
                       padded(one_line(r.docid, 24), id_width, false) +
                       padded(formatted("%.4f", r.score), 9, true) +
                       padded(std::to_string(r.integer), 8, true) +
                       formatted("%5.2f", r.probability) + "  " + distribution_bar(r.distribution);
    if (first_stage)
      line += padded(r.first_stage_score ? formatted("%.3f", *r.first_stage_score) : "-", 8, true);
    line += "  ";
    const size_t used = characters(line);
    line += one_line(job.passages[r.index].text, width > used + 12 ? width - used : 12);
    out += line + "\n";
    std::string note = r.reasoning;
    for (const auto& flag : r.flags) note = base::str("[", flag, "] ", note);
    if (r.finish != rank::Finish::kAnswered)
      note = base::str("[", rank::finish_name(r.finish), "] ", note);
    if (!note.empty()) out += "       " + one_line(note, width > 20 ? width - 7 : 13) + "\n";
  }
  for (const auto& r : ranking.failed)
    out += "       " + padded(one_line(r.docid, 24), id_width, false) +
           " not scored: " + rank::error_name(r.error->kind) + "\n";
  if (append_tail && !job.tail.empty())
    out +=
        base::str("       and ", job.tail.size(), " below --top, unscored, in first-stage order\n");
  return out + "\n";
}

std::string jsonl(const RerankJob& job, const rank::Ranking& ranking, bool append_tail) {
  std::string out;
  int64_t rank = 0;
  for (const auto* results : {&ranking.results, &ranking.failed})
    for (const auto& r : *results)
      out += base::dump_json(rank::to_json(ranking.qid, ++rank, r)) + "\n";
  if (append_tail)
    for (const auto& passage : job.tail)
      out += base::dump_json(
                 rank::unscored_json(ranking.qid, ++rank, passage.id, passage.first_stage_score)) +
             "\n";
  return out;
}

std::string trec(const RerankJob& job, const rank::Ranking& ranking, bool append_tail,
                 const std::string& tag) {
  std::vector<data::Hit> hits;
  for (const auto& r : ranking.results) hits.push_back({r.docid, r.score});
  double below = hits.empty() ? 0 : hits.back().score;
  for (const auto& r : ranking.failed) hits.push_back({r.docid, below -= 1});
  if (append_tail)
    for (const auto& passage : job.tail) hits.push_back({passage.id, below -= 1});
  std::string out;
  data::append_trec_lines(out, ranking.qid, hits, tag);
  return out;
}

}  // namespace

RerankFormat parse_rerank_format(const std::string& name, bool to_file) {
  if (name == "table") return RerankFormat::kTable;
  if (name == "jsonl") return RerankFormat::kJsonl;
  if (name == "trec") return RerankFormat::kTrec;
  return !to_file && ::isatty(STDOUT_FILENO) ? RerankFormat::kTable : RerankFormat::kJsonl;
}

std::string format_ranking(RerankFormat format, const RerankJob& job, const rank::Ranking& ranking,
                           bool append_tail, const std::string& tag) {
  switch (format) {
    case RerankFormat::kTable:
      return table(job, ranking, append_tail);
    case RerankFormat::kJsonl:
      return jsonl(job, ranking, append_tail);
    case RerankFormat::kTrec:
      break;
  }
  return trec(job, ranking, append_tail, tag);
}

}  // namespace erank::cli
