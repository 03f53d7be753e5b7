#include "cli/rerank.h"

#include <algorithm>

#include "cli/calibrated.h"
#include "cli/checks.h"
#include "cli/made_of.h"
#include "cli/rerank_jobs.h"
#include "cli/rerank_output.h"
#include "cli/rerank_run.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/journal.h"
#include "erank/data/records.h"
#include "erank/eval/calibration.h"
#include "erank/rank/model_files.h"

namespace erank::cli {
namespace {

using base::ErrorKind;

constexpr const char* kExample =
    "Examples:\n"
    "  erank rerank --query 'why is the sky blue' --docs docs.jsonl\n"
    "  erank rerank --beir nfcorpus --run bm25.trec --hybrid zscore:0.2 --format trec --out "
    "erank.trec";

// "zscore:0.2" -> its method and weight.
void set_hybrid(const std::string& text, rank::ScoreOptions& options) {
  const size_t colon = text.find(':');
  size_t used = 0;
  double weight = -1;
  try {
    if (colon != text.npos) weight = std::stod(text.substr(colon + 1), &used);
  } catch (const std::exception&) {
    weight = -1;
  }
  if (!(weight >= 0 && weight <= 1) || used + colon + 1 != text.size())
    base::fail(
        ErrorKind::kInvalidInput, "--hybrid", "'", text,
        "', expected METHOD:W with METHOD zscore, minmax, sum or rrf and W, the first stage's "
        "weight, from 0 to 1");
  options.hybrid_method = rank::parse_fusion_method(text.substr(0, colon), "--hybrid");
  options.hybrid_weight = weight;
}

// Leaves the queries of shard "i/n": neighbours, about as many pairs in each shard.
void keep_shard(const std::string& shard, std::vector<RerankJob>& jobs) {
  const Shard part = parse_shard(shard, "--shard");
  int64_t total = 0, before = 0;
  for (const auto& job : jobs) total += std::ssize(job.passages);
  std::erase_if(jobs, [&](const RerankJob& job) {
    const int64_t number = total > 0 ? std::min(before * part.count / total, part.count - 1) : 0;
    before += std::ssize(job.passages);
    return number + 1 != part.number;
  });
}

rank::ScoreOptions score_options(const RerankFlags& f) {
  rank::ScoreOptions o;
  if (!f.instruction.empty()) o.instruction = f.instruction;
  if (f.think) o.mode = rank::Mode::kThink;
  if (f.direct) o.mode = rank::Mode::kDirect;
  if (!f.score.empty()) o.score = rank::parse_score_kind(f.score, "--score");
  if (f.max_think_tokens > 0) o.max_think_tokens = f.max_think_tokens;
  o.long_documents =
      f.long_documents == "cut" ? rank::LongDocuments::kCut : rank::LongDocuments::kWindows;
  o.max_windows = f.max_windows;
  o.samples = f.samples;
  o.temperature = f.temperature;
  o.seed = f.seed;
  if (!f.hybrid.empty()) set_hybrid(f.hybrid, o);
  return o;
}

// Of all that is scored: a file that changed is told from the first one, a file that moved is not.
struct PairDigests {
  std::string queries, documents;
  std::string first_stage;  // scores, and what is below --top: they shape the output alone
};
PairDigests digests_of(const std::vector<RerankJob>& jobs) {
  rank::Digest queries, documents, first_stage;
  for (const auto& job : jobs) {
    queries.add(job.qid), queries.add(job.query);
    documents.add(job.qid);
    for (const auto& passage : job.passages) documents.add(passage.id), documents.add(passage.text);
    first_stage.add(job.qid);
    for (const auto* passages : {&job.passages, &job.tail})
      for (const auto& passage : *passages) {
        first_stage.add(passage.id);
        first_stage.add(passage.first_stage_score
                            ? base::dump_json(base::Json(*passage.first_stage_score))
                            : "");
      }
  }
  return {queries.hex(), documents.hex(), first_stage.hex()};
}

// What cannot be done is said before any work. `where`: "stdin:3: ", or "".
void check_job(const RerankFlags& f, const RerankJob& job, const std::string& where) {
  std::string unused;
  for (const auto* passages : {&job.passages, &job.tail})
    for (const auto& passage : *passages) {
      if (!f.hybrid.empty() && passages == &job.passages && !passage.first_stage_score)
        base::fail(ErrorKind::kInvalidInput, "--hybrid", where, "query ", job.qid, ", document ",
                   passage.id,
                   " has no first-stage score to blend with; give --run, or --candidates whose "
                   "hits have scores");
      if (f.format == "trec") data::append_trec_lines(unused, job.qid, {{passage.id, 0}}, f.tag);
      unused.clear();
    }
}

// What results depend on: a resumed job must say the same. The hybrid weight, the format and --tail
// only shape the output.
base::Json fingerprint(const RerankFlags& f, const PairDigests& pairs) {
  return {{"weights", rank::files_digest(f.model.files())},
          {"precision", f.model.precision},
          {"device", f.model.device == "cpu" ? "cpu" : "cuda"},  // whichever GPUs
          {"queries", pairs.queries},
          {"documents", pairs.documents},
          {"shard", f.shard},
          {"top", f.input.top},
          {"instruction", f.instruction},
          {"mode", f.think    ? "think"
                   : f.direct ? "direct"
                              : ""},
          {"score", f.score},
          {"scale", f.model.scale},
          {"max_doc_tokens", f.max_document_tokens},
          {"max_query_tokens", f.max_query_tokens},
          {"long_docs", f.long_documents},
          {"max_windows", f.max_windows},
          {"max_think_tokens", f.max_think_tokens},
          {"samples", f.samples},
          {"temperature", f.temperature},
          {"seed", f.seed}};
}

std::string calibration_file(const RerankFlags& f) {
  return cli::calibration_file(f.calibrated, f.model.options.model);
}

// With what else of the options shapes the output.
base::Json made_of(const RerankFlags& f, const PairDigests& pairs, base::Json scored,
                   bool calibrated) {
  scored["first_stage"] = pairs.first_stage;
  scored["hybrid"] = f.hybrid;
  scored["format"] = f.format;
  scored["tail"] = f.tail;
  scored["tag"] = f.tag;
  scored["min_probability"] = f.min_probability;
  scored["calibrated"] = calibrated ? rank::files_digest({calibration_file(f)}) : "";
  return scored;
}

bool to_stdout(const RerankFlags& f) { return f.out.empty() || f.out == "-"; }

// What the results may not replace.
std::vector<std::string> files_read(const RerankFlags& f) {
  std::vector<std::string> files = f.model.files();
  if (const std::string file = calibration_file(f); !file.empty()) files.push_back(file);
  for (auto& name : input_files(f.input)) files.push_back(std::move(name));
  if (!f.input.beir.empty()) {
    const auto beir = data::find_beir(f.input.beir);
    std::erase(files, f.input.beir);
    files.insert(files.end(), {beir.queries, beir.corpus});
  }
  return files;
}

// Whether --resume finds nothing to do, if the output was made of the same. `journal` is its
// journal's name, "" for a stream.
bool is_complete(const RerankFlags& f, const base::OutputTarget& target,
                 const std::string& journal) {
  if (f.resume && journal.empty())
    base::fail(ErrorKind::kInvalidInput, "--resume",
               to_stdout(f) ? std::string("needs --out F, whose journal it goes on from")
                            : f.out +
                                  " is written as a stream, which has no journal to go on "
                                  "from; give --out the name of a file");
  rank::refuse_inputs({to_stdout(f) ? "-" : f.out, f.stats}, files_read(f));
  if (!f.stats.empty() && !f.overwrite && !f.resume && base::file_exists(f.stats))
    base::fail(ErrorKind::kInvalidInput, "--stats", f.stats,
               " exists; give another name or --overwrite");
  if (!f.stats.empty() && base::output_target(f.stats).path == target.path)
    base::fail(ErrorKind::kInvalidInput, "--stats", "is the file of --out; give another name");
  if (journal.empty()) return false;
  check_made_of(target.path, "rerank");  // what is none is refused before any work
  const bool out_there = target.kind == base::OutputTarget::kFile;
  const bool journal_there = data::Journal::exists(journal);
  if (f.resume && out_there && !journal_there) return true;
  if (!f.resume && !f.overwrite && (out_there || journal_there))
    base::fail(ErrorKind::kInvalidInput, "--out", out_there ? f.out : journal,
               " exists; --resume goes on where it stopped, --overwrite starts anew");
  return false;
}

// Throws when a finished output was made of something else, or is not as it was made.
void check_complete(const RerankFlags& f, const base::OutputTarget& target,
                    const base::Json& made_of) {
  const auto before = read_made_of(target.path, "rerank");
  if (before) {
    if (const std::string what = difference(*before, made_of); !what.empty())
      base::fail(ErrorKind::kInvalidInput, "--resume", f.out, " is complete, but ", what,
                 "; --overwrite makes it anew");
    if (!f.is_part) warn(f.out + " is complete already; nothing to resume");
  } else {
    warn(base::str(f.out, " is complete already; there is no ", made_path(target.path),
                   " to tell whether it was made of the same inputs and options"));
  }
}

rank::RerankerOptions reranker_options(const RerankFlags& f) {
  rank::RerankerOptions options = f.model.resolved();
  if (f.max_document_tokens > 0) options.max_document_tokens = f.max_document_tokens;
  if (f.max_query_tokens > 0) options.max_query_tokens = f.max_query_tokens;
  return options;
}

RerankPlan plan_of(const RerankFlags& f) {
  RerankPlan plan;
  plan.reranker = reranker_options(f);
  plan.loaded = f.loaded;
  plan.scores = score_options(f);
  plan.min_probability = f.min_probability;
  plan.format = parse_rerank_format(f.format, !to_stdout(f));
  plan.append_tail = f.tail == "append";
  plan.tag = f.tag;
  plan.out = to_stdout(f) ? "-" : f.out;
  plan.stats = f.stats;
  plan.resume = f.resume, plan.overwrite = f.overwrite, plan.quiet = f.quiet;
  return plan;
}

}  // namespace

void check_scoring_options(const RerankFlags& flags) { score_options(flags); }

RerankDone rerank(const RerankFlags& flags, Context& context) {
  check_scoring_options(flags);
  if (!flags.shard.empty()) parse_shard(flags.shard, "--shard");
  const eval::ScoredBy by =
      scored_by(scoring_model(flags.model, reranker_options(flags)), score_options(flags));
  const auto calibration =
      find_calibration(flags.calibrated, flags.model.options.model, !flags.quiet && !flags.is_part,
                       [&](const eval::ScoredBy&) { return by; });
  if (flags.min_probability > 0 && !calibration)
    base::fail(ErrorKind::kInvalidInput, "--min-probability",
               "needs a calibration for these scores: --calibrated FILE, which `erank calibrate` "
               "makes, or the one that it stores beside the model");
  check_rerank_input(flags.input);
  const auto target = base::output_target(to_stdout(flags) ? "-" : flags.out);
  if (target.kind == base::OutputTarget::kFolder)
    base::fail(ErrorKind::kInvalidInput, "--out", flags.out,
               " is a folder, expected a file's name");
  const std::string journal = journal_of(target);
  if (!flags.shard.empty() && journal.empty())
    base::fail(ErrorKind::kInvalidInput, "--shard",
               "needs --out with a file's name, for `erank merge`");
  const bool complete = is_complete(flags, target, journal);
  RerankPlan plan = plan_of(flags);
  plan.calibration = calibration;
  plan.scored_by = by;
  if (flags.input.candidates == "-" && journal.empty())
    return run_rerank_stream(
        plan, flags.input,
        [flags](const RerankJob& job, const std::string& where) {
          check_job(flags, job, where + ": ");
        },
        context);
  std::vector<RerankJob> jobs = read_rerank_jobs(flags.input, *context.progress);
  for (const auto& job : jobs) check_job(flags, job, "");
  if (!journal.empty()) {  // a stream has nobody to compare with, and is to start at once
    const PairDigests pairs = digests_of(jobs);
    plan.journal_header = fingerprint(flags, pairs);
    plan.made_of = made_of(flags, pairs, plan.journal_header, calibration.has_value());
  }
  if (complete) {
    check_complete(flags, target, plan.made_of);
    return {};
  }
  if (!flags.shard.empty()) keep_shard(flags.shard, jobs);
  return run_rerank(plan, std::move(jobs), context);
}

void add_scoring_options(CLI::App& verb, RerankFlags& f) {
  f.model.add_to(verb);
  verb.add_option("--instruction", f.instruction,
                  "what relevance means here (default: the checkpoint's)");
  auto* think = verb.add_flag("--think", f.think, "let the model write its reasoning first");
  verb.add_flag("--direct", f.direct, "read the answer at once")->excludes(think);
  verb.add_option("--max-doc-tokens", f.max_document_tokens,
                  "tokens of a document that are read at once (default: the checkpoint's)")
      ->check(positive_number());
  verb.add_option("--long-docs", f.long_documents,
                  "of a document of more tokens read windows that overlap, and take the best\n"
                  "score; cut: read its beginning")
      ->check(CLI::IsMember({"windows", "cut"}))
      ->capture_default_str();
  verb.add_option("--max-windows", f.max_windows, "windows of a document that are read")
      ->check(positive_number())
      ->capture_default_str();
  verb.add_option("--max-query-tokens", f.max_query_tokens, "cut queries to so many tokens")
      ->check(positive_number());
  verb.add_option("--max-think-tokens", f.max_think_tokens,
                  "force an answer after so many tokens of reasoning")
      ->check(positive_number());
  verb.add_option("--score", f.score,
                  "paper (s Pr(s)), expected or integer (default: the checkpoint's)");
  verb.add_option("--hybrid", f.hybrid,
                  "METHOD:W blends with the first stage, W its weight (the paper: zscore:0.2);\n"
                  "zscore, minmax, sum or rrf as in `erank fuse`");
  verb.add_option("--temperature", f.temperature,
                  "sampling temperature of the reasoning; 0 is greedy")
      ->check(non_negative_number())
      ->capture_default_str();
  verb.add_option("--samples", f.samples,
                  "reasonings drawn of a pair, whose score is the mean of theirs; needs\n"
                  "--temperature")
      ->check(positive_number())
      ->capture_default_str();
  verb.add_option("--seed", f.seed, "random seed for sampling the reasoning")
      ->capture_default_str();
}

void add_rerank(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand("rerank", "Score a query's candidates and print them best first");
  auto flags = std::make_shared<RerankFlags>();
  RerankFlags& f = *flags;
  verb->footer(kExample);
  add_rerank_input(*verb, f.input);
  add_scoring_options(*verb, f);
  verb->add_option("--calibrated", f.calibrated,
                   "adds each pair's probability of relevance, by this file of erank calibrate\n"
                   "(default: the one that it stored beside the model, if it is for these scores)");
  verb->add_option("--min-probability", f.min_probability,
                   "leave out scored pairs below this probability of relevance")
      ->check(number_that([](double x) { return x >= 0 && x <= 1; }, "a number from 0 to 1",
                          "PROBABILITY"));
  verb->add_option("--format", f.format,
                   "table, jsonl or trec (default: table on a terminal, else jsonl)")
      ->check(CLI::IsMember({"table", "jsonl", "trec"}));
  verb->add_option("--tag", f.tag, "last column of --format trec")->capture_default_str();
  verb->add_option("--tail", f.tail,
                   "candidates below --top: append (in first-stage order) or drop")
      ->check(CLI::IsMember({"append", "drop"}))
      ->capture_default_str();
  verb->add_option(
      "--out", f.out,
      "write here instead of stdout; a file (not a FIFO or device) has a journal beside "
      "it until it is complete");
  verb->add_option("--shard", f.shard,
                   "i/n: only the i-th of n parts of the queries; `erank merge` joins the outputs");
  verb->add_option("--stats", f.stats,
                   "write each query's time and token counts here, as JSON lines");
  auto* resume = verb->add_flag("--resume", f.resume, "go on with --out's journal");
  verb->add_flag("--overwrite", f.overwrite, "replace an existing --out")->excludes(resume);
  verb->add_flag("--quiet", f.quiet, "no summary and no doubts about the scores on stderr");
  verb->callback([flags, &context] {
    context.run = [flags, &context] {
      const RerankDone done = rerank(*flags, context);
      if (done.num_failed > 0)
        base::fail(ErrorKind::kExhausted, "rerank", done.num_failed, " of ", done.num_pairs,
                   " pairs could not be scored and are last in the output",
                   done.can_retry ? "; --resume tries them again" : "");
    };
  });
}

}  // namespace erank::cli
