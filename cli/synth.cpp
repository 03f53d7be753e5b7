#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "cli/checks.h"
#include "cli/output.h"
#include "cli/progress_line.h"
#include "cli/rerank_jobs.h"
#include "cli/synth_report.h"
#include "cli/text_table.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/utf8.h"
#include "erank/data/journal.h"
#include "erank/rank/checkpoint.h"
#include "erank/rank/model_files.h"
#include "erank/synth/chat_endpoint.h"

namespace erank::cli {
namespace {

using base::ErrorKind;

struct SynthFlags {
  SynthFlags() { input.verb = "synth", input.work = "label"; }
  RerankInput input;
  synth::EndpointOptions endpoint;
  synth::RequestOptions request;
  synth::LabelOptions labels;
  std::string judge = "points", key_variable, body, tokenizer, qrels, out;
  Prices prices;
  bool resume = false, overwrite = false, dry_run = false, json = false;
};

constexpr const char* kKeyVariable = "OPENAI_API_KEY";
constexpr int64_t kPromptsCounted = 1000;  // of a dry run

constexpr const char* kExample =
    "Examples:\n"
    "  erank data sample --beir scifact --split train --run bm25.run --out candidates.jsonl\n"
    "  erank synth --candidates candidates.jsonl --endpoint http://localhost:8080/v1 \\\n"
    "    --model QwQ-32B --samples 3 --out pairs.jsonl\n"
    "  erank train sft --data pairs.jsonl --out run1";

std::string key_of(const SynthFlags& f) {
  const char* key = std::getenv(f.key_variable.empty() ? kKeyVariable : f.key_variable.c_str());
  if (!key && !f.key_variable.empty())
    base::fail(ErrorKind::kNotFound, "--api-key-env", "there is no environment variable ",
               base::in_quotes(f.key_variable), "; it should hold the endpoint's key");
  return key ? key : "";
}

// A key should not cross a network as plain text unnoticed.
void warn_unencrypted(const SynthFlags& f, const std::string& url) {
  if (f.endpoint.key.empty() || !url.starts_with("http://")) return;
  for (const char* own : {"http://localhost", "http://127.", "http://[::1]"})
    if (url.starts_with(own)) return;
  warn(url + " is not encrypted: others on the network can read the key");
}

void check_flags(SynthFlags& f) {
  check_rerank_input(f.input);
  if (f.prices.in.has_value() != f.prices.out.has_value())
    base::fail(ErrorKind::kInvalidInput, f.prices.in ? "--price-in" : "--price-out",
               "needs the other price too, for the cost is of both kinds of tokens");
  const auto need = [](bool is_there, const char* flag, const char* what) {
    if (!is_there) base::fail(ErrorKind::kInvalidInput, "synth", flag, " is missing: ", what);
  };
  if (!f.dry_run) {
    need(!f.endpoint.url.empty(), "--endpoint URL",
         "a chat API as OpenAI's, for example http://localhost:8080/v1");
    need(!f.request.model.empty(), "--model NAME", "the teacher, as the endpoint calls it");
    need(!f.out.empty() && f.out != "-", "--out FILE",
         "a file, with a journal beside it that keeps what was paid for");
  }
  if (!f.body.empty()) {
    f.request.changes = base::parse_json(f.body, "--body");
    if (!f.request.changes.is_object())
      base::fail(ErrorKind::kInvalidInput, "--body", base::in_quotes(f.body),
                 " is no JSON object, expected for example '{\"top_p\": 0.95}'");
    for (const char* key : {"messages", "stream", "n"})
      if (f.request.changes.contains(key))
        base::fail(ErrorKind::kInvalidInput, "--body", "'", key,
                   "' is what this verb sets itself, and cannot be changed");
  }
  f.labels.judge = f.judge == "pairs" ? synth::Judge::kPairs : synth::Judge::kPoints;
  f.request.max_tokens = f.labels.max_tokens;
}

std::vector<data::CandidateList> read_lists(const SynthFlags& f, base::ProgressSink& progress) {
  std::vector<data::CandidateList> lists;
  for (RerankJob& job : read_rerank_jobs(f.input, progress)) {
    data::CandidateList list{{std::move(job.qid), std::move(job.query)}, {}};
    for (rank::Passage& passage : job.passages)
      list.candidates.push_back(
          {{std::move(passage.id), std::move(passage.text)}, passage.first_stage_score});
    lists.push_back(std::move(list));
  }
  return lists;
}

// What replies depend on: a resumed job must say the same. Not the endpoint's address, which may
// move, nor --samples, of which there may be more.
base::Json fingerprint(const SynthFlags& f, const std::vector<data::CandidateList>& lists,
                       const std::string& tokenizer) {
  rank::Digest queries, documents;
  for (const auto& list : lists) {
    queries.add(list.query.id), queries.add(list.query.text);
    documents.add(list.query.id);
    for (const auto& c : list.candidates)
      documents.add(c.document.id), documents.add(c.document.text);
  }
  base::Json header = {{"verb", "synth"},
                       {"judge", f.judge},
                       {"model", f.request.model},
                       {"temperature", f.request.temperature},
                       {"max_tokens", f.labels.max_tokens},
                       {"body", f.request.changes},
                       {"instruction", f.labels.instruction},
                       {"max_doc_tokens", f.labels.prompt.max_document_tokens},
                       {"max_query_tokens", f.labels.prompt.max_query_tokens},
                       {"tokenizer", rank::weights_digest(tokenizer)},
                       {"queries", queries.hex()},
                       {"documents", documents.hex()}};
  if (f.labels.judge == synth::Judge::kPairs) header["seed"] = f.labels.seed;
  return header;
}

// What the output may not replace.
std::vector<std::string> files_read(const SynthFlags& f, const std::string& tokenizer) {
  std::vector<std::string> files = input_files(f.input);
  if (!f.input.beir.empty()) {
    const auto beir = data::find_beir(f.input.beir);
    std::erase(files, f.input.beir);
    files.insert(files.end(), {beir.queries, beir.corpus});
  }
  files.insert(files.end(), {f.qrels, tokenizer});
  return files;
}

// The name of --out at the end of its links.
std::string check_out(const SynthFlags& f, const std::string& tokenizer) {
  const auto target = base::output_target(f.out);
  if (target.kind == base::OutputTarget::kFolder || target.kind == base::OutputTarget::kStream)
    base::fail(ErrorKind::kInvalidInput, "--out", f.out,
               target.kind == base::OutputTarget::kFolder ? " is a folder" : " is a stream",
               ", expected a file's name: a journal beside it keeps what was paid for");
  rank::refuse_inputs({f.out}, files_read(f, tokenizer));
  const bool out_there = target.kind == base::OutputTarget::kFile;
  const bool journal_there = data::Journal::exists(target.path + ".journal");
  if (!f.resume && !f.overwrite && (out_there || journal_there))
    base::fail(ErrorKind::kInvalidInput, "--out", out_there ? f.out : target.path + ".journal",
               " exists; --resume goes on where it stopped, --overwrite starts anew and asks, and "
               "pays, again");
  if (f.resume && out_there && !journal_there)
    base::fail(ErrorKind::kInvalidInput, "--resume", f.out, " has no journal ", target.path,
               ".journal to go on from; --overwrite makes it anew");
  return target.path;
}

// Of all requests, from a part of them spread evenly: tokens of the questions.
int64_t estimated_tokens(const synth::Labelling& labelling, const text::Tokenizer& tokenizer,
                         const std::vector<int64_t>& requests) {
  const int64_t count = std::min(std::ssize(requests), kPromptsCounted);
  int64_t tokens = 0;
  for (int64_t i = 0; i < count; ++i)
    tokens += std::ssize(tokenizer.encode(
        labelling.question(requests[static_cast<size_t>(i * std::ssize(requests) / count)])));
  return count > 0 ? std::llround(static_cast<double>(tokens) / static_cast<double>(count) *
                                  static_cast<double>(requests.size()))
                   : 0;
}

class SynthRun {
 public:
  SynthRun(const SynthFlags& flags, synth::Labelling labelling, Context& context)
      : flags_(flags), labelling_(std::move(labelling)), context_(context) {}

  // `how`: kAnew is not for a dry run.
  void open_journal(const std::string& path, const base::Json& header, data::Journal::Start how) {
    journal_path_ = path;
    journal_ = std::make_unique<data::Journal>(data::Journal::open(path, header, how));
  }

  // What the journal has is not asked again.
  void read_journal() {
    for (int64_t i = 0; i < labelling_.num_requests(); ++i) {
      const auto body = journal_ ? journal_->find(labelling_.key(i)) : std::nullopt;
      if (body)
        labelling_.take(i, completion_in(*body));
      else
        missing_.push_back(i);
    }
    num_known_ = labelling_.num_requests() - std::ssize(missing_);
  }

  void estimate(const text::Tokenizer& tokenizer) const {
    const int64_t prompt = estimated_tokens(labelling_, tokenizer, missing_);
    const int64_t completion = std::ssize(missing_) * flags_.labels.max_tokens;
    const auto report = labelling_.report();
    const auto cost = cost_of(flags_.prices, prompt, completion);
    Output out("", true);
    if (flags_.json) {
      base::OrderedJson json;
      json["queries"] = report.queries;
      json["pairs"] = report.pairs;
      json["requests"] = std::ssize(missing_);
      json["in_journal"] = num_known_;
      json["prompt_tokens"] = prompt;
      json["max_completion_tokens"] = completion;
      json["max_cost"] = cost ? base::OrderedJson(*cost) : base::OrderedJson();
      out.write(base::dump_json(json) + "\n");
    } else {
      out.write(base::str(
          "queries     ", report.queries, "\npairs       ", report.pairs, "\nrequests    ",
          missing_.size(), num_known_ > 0 ? base::str(", and ", num_known_, " in the journal") : "",
          "\ntokens      prompt about ", prompt, ", completion at most ", completion, "\n"));
      if (cost) out.write("cost        at most about " + formatted("%.4f", *cost) + "\n");
    }
    out.commit();
  }

  void run(synth::ChatEndpoint& endpoint) {
    if (!ask(endpoint)) return stop();
    const auto report = labelling_.report();
    if (report.labelled == 0)
      base::fail(ErrorKind::kInvalidInput, "synth", "no pair has a label: of ", report.requests,
                 " requests ", report.failed, " failed, ", report.too_long, " answers have over ",
                 flags_.labels.max_tokens, " tokens, ", report.unformatted,
                 " cannot be read; nothing was written, the replies are in ", journal_path_);
    Output output(flags_.out, true);
    labelling_.write(
        [&](int64_t request) { return completion_in(*journal_->find(labelling_.key(request))); },
        [&](const std::string& line) { output.write(line + "\n"); });
    output.commit();
  }

  SynthReport report(const std::optional<data::Qrels>& qrels) const {
    SynthReport report;
    report.labels = labelling_.report();
    report.judge = flags_.labels.judge;
    report.max_tokens = flags_.labels.max_tokens;
    report.sent = sent_;
    report.cost =
        cost_of(flags_.prices, report.labels.prompt_tokens, report.labels.completion_tokens);
    if (qrels) report.quality = quality_of(labelling_, *qrels);
    return report;
  }

 private:
  // False when the user interrupts.
  bool ask(synth::ChatEndpoint& endpoint) {
    size_t next = 0;
    synth::ChatEndpoint::Callbacks callbacks;
    callbacks.next = [&]() -> std::optional<synth::ChatRequest> {
      if (next == missing_.size()) return std::nullopt;
      const int64_t request = missing_[next++];
      return synth::ChatRequest{request,
                                synth::request_body(flags_.request, labelling_.question(request))};
    };
    callbacks.take = [&](synth::ChatReply reply) { take(std::move(reply)); };
    callbacks.stop = [&](const synth::ChatCounts& counts) {
      // Before anything else is sent, so that what has come in is never asked again.
      if (uncommitted_) journal_->commit();
      uncommitted_ = false;
      sent_ = counts.sent;
      progress(counts);
      return interrupted();
    };
    const bool whole = endpoint.run(callbacks);
    context_.progress->finish();
    return whole;
  }

  void take(synth::ChatReply reply) {
    const std::string key = labelling_.key(reply.number);
    if (reply.completion) {
      journal_->append(key, reply.body);
      labelling_.take(reply.number, *reply.completion);
    } else {
      // Of no use, and perhaps paid for.
      if (!reply.body.empty())
        journal_->append(base::dump_json(base::Json{key, "unreadable", journal_->size()}),
                         reply.body);
      labelling_.take_failure(reply.number);
      ProgressLine::print_above(
          base::str("erank: ", labelling_.pair_of(reply.number), ": ", reply.error));
    }
    uncommitted_ = true;
  }

  void progress(const synth::ChatCounts& counts) const {
    std::string detail = counts.failed > 0 ? base::str(counts.failed, " failed") : "";
    const int64_t again = counts.sent - counts.answered - counts.failed;
    if (again > flags_.endpoint.concurrency)
      detail += base::str(detail.empty() ? "" : ", ", "some sent again");
    if (counts.paused_s >= 1)
      detail += base::str(detail.empty() ? "" : ", ", "the server asks to wait ",
                          duration_text(counts.paused_s));
    context_.progress->update({"synth", num_known_ + counts.answered + counts.failed,
                               labelling_.num_requests(), "requests", detail});
  }

  void stop() const {
    journal_->commit();
    const auto report = labelling_.report();
    warn(base::str("interrupted with ", report.answered, " of ", report.requests,
                   " requests answered; go on with --resume"));
  }

  synth::Completion completion_in(const std::string& body) const {
    auto read = synth::read_completion(body);
    if (!read.completion)
      base::fail(ErrorKind::kCorrupt, "journal", journal_path_, ": ", read.reason);
    return std::move(*read.completion);
  }

  const SynthFlags& flags_;
  synth::Labelling labelling_;
  Context& context_;
  std::string journal_path_;
  std::unique_ptr<data::Journal> journal_;
  std::vector<int64_t> missing_;  // requests that the journal has no reply to
  int64_t num_known_ = 0, sent_ = 0;
  bool uncommitted_ = false;
};

void synth_labels(SynthFlags& f, Context& context) {
  check_flags(f);
  const std::string tokenizer_path = rank::find_checkpoint(f.tokenizer).weights;
  std::unique_ptr<synth::ChatEndpoint> endpoint;
  if (!f.endpoint.url.empty()) {
    if (!f.dry_run) f.endpoint.key = key_of(f);
    endpoint = std::make_unique<synth::ChatEndpoint>(f.endpoint);
  }
  std::string out;
  if (!f.dry_run || (f.resume && !f.out.empty())) out = check_out(f, tokenizer_path);
  std::optional<data::Qrels> qrels;
  if (!f.qrels.empty()) {
    data::ReadNotes notes;
    qrels = data::read_qrels(f.qrels, &notes);
    tell(f.qrels, notes);
  }
  auto lists = read_lists(f, *context.progress);
  const text::Tokenizer tokenizer = text::Tokenizer::load(tokenizer_path);
  const base::Json header = fingerprint(f, lists, tokenizer_path);
  if (qrels && std::none_of(lists.begin(), lists.end(), [&](const data::CandidateList& list) {
        return qrels->grades.count(list.query.id);
      }))
    base::fail(ErrorKind::kInvalidInput, "--qrels", f.qrels, ": judges none of the queries");
  SynthRun run(f, synth::Labelling(std::move(lists), tokenizer, f.labels), context);
  using Start = data::Journal::Start;
  if (!f.dry_run || (!out.empty() && data::Journal::exists(out + ".journal")))
    run.open_journal(out + ".journal", header,
                     f.resume      ? Start::kResume
                     : f.overwrite ? Start::kAnew
                                   : Start::kNew);
  run.read_journal();
  if (f.dry_run) return run.estimate(tokenizer);
  warn_unencrypted(f, endpoint->shown_url());
  run.run(*endpoint);
  if (interrupted()) return;
  const SynthReport report = run.report(qrels);
  Output output("", true);
  output.write(f.json ? base::dump_json(to_json(report)) + "\n" : to_text(report));
  output.commit();
  if (qrels && !report.quality) warn("no labelled query has judgements: there is no nDCG");
  if (report.labels.failed > 0)
    base::fail(ErrorKind::kExhausted, "synth", report.labels.failed, " of ", report.labels.requests,
               " requests failed; --resume sends them again");
}

}  // namespace

void add_synth(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand(
      "synth", "Have a teacher at a chat API label queries' documents, for erank train sft");
  auto flags = std::make_shared<SynthFlags>();
  SynthFlags& f = *flags;
  verb->footer(kExample);
  add_rerank_input(*verb, f.input);
  verb->add_option("--endpoint", f.endpoint.url,
                   "URL of a chat API as OpenAI's: https://api.openai.com/v1, or of a server of "
                   "your own");
  verb->add_option("--model", f.request.model, "the teacher, as the endpoint calls it");
  verb->add_option("--api-key-env", f.key_variable,
                   std::string("environment variable that holds the key (default: ") +
                       kKeyVariable + ", which may be missing)");
  verb->add_option("--judge", f.judge,
                   "points: each document gets a score from 0 to 10, --samples times;\n"
                   "pairs: two are compared at a time, in --samples random cycles of a query's\n"
                   "documents, and the strengths are laid on 0 to 10")
      ->check(CLI::IsMember({"points", "pairs"}))
      ->capture_default_str();
  verb->add_option("--samples", f.labels.samples, "answers for a pair; cycles of --judge pairs")
      ->check(CLI::Range(int64_t{1}, int64_t{1000}))
      ->capture_default_str();
  verb->add_option("--temperature", f.request.temperature, "of the teacher's sampling")
      ->check(number_that([](double x) { return x >= 0 && x <= 100; }, "a number from 0 to 100",
                          "TEMPERATURE"))
      ->capture_default_str();
  verb->add_option("--max-tokens", f.labels.max_tokens,
                   "of an answer with its reasoning; what is longer is dropped")
      ->check(CLI::Range(int64_t{1}, int64_t{1'000'000}))
      ->capture_default_str();
  verb->add_option("--body", f.body,
                   "JSON object merged into each request, null removes a key, for example\n"
                   "'{\"top_p\": 0.95, \"max_tokens\": null, \"max_completion_tokens\": 2048}'");
  verb->add_option("--instruction", f.labels.instruction, "what relevance means here")
      ->capture_default_str();
  verb->add_option("--max-doc-tokens", f.labels.prompt.max_document_tokens,
                   "cut documents to so many tokens")
      ->check(positive_number())
      ->capture_default_str();
  verb->add_option("--max-query-tokens", f.labels.prompt.max_query_tokens,
                   "cut queries to so many tokens")
      ->check(positive_number())
      ->capture_default_str();
  verb->add_option("--tokenizer", f.tokenizer,
                   "model whose tokens these are (default: erank-135m)");
  verb->add_option("--seed", f.labels.seed, "of the cycles of --judge pairs")
      ->capture_default_str();
  verb->add_option("--concurrency", f.endpoint.concurrency, "requests under way at a time")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  verb->add_option("--requests-per-minute", f.endpoint.requests_per_minute,
                   "send no more than so many (default: no limit)")
      ->check(positive_number());
  verb->add_option("--timeout", f.endpoint.timeout_s, "seconds to wait for a reply")
      ->check(number_that([](double x) { return x > 0 && x <= 86400; },
                          "a number above 0, of at most 86400", "SECONDS"))
      ->capture_default_str();
  verb->add_option("--retries", f.endpoint.retries,
                   "how often a request is sent again after 429, 5xx, a time-out or a cut "
                   "connection")
      ->check(CLI::Range(0, 100))
      ->capture_default_str();
  verb->add_option("--price-in", f.prices.in, "of a million prompt tokens, for the cost")
      ->check(non_negative_number());
  verb->add_option("--price-out", f.prices.out, "of a million completion tokens")
      ->check(non_negative_number());
  verb->add_option("--qrels", f.qrels, "judgements, for nDCG@10 of the labels");
  verb->add_option("--out", f.out,
                   "training pairs, JSON lines (.gz, .zst); OUT.journal keeps every reply");
  auto* resume = verb->add_flag("--resume", f.resume,
                                "go on with --out's journal: send what has no reply yet");
  verb->add_flag("--overwrite", f.overwrite, "replace --out and its journal")->excludes(resume);
  verb->add_flag("--dry-run", f.dry_run,
                 "count requests and estimate tokens and cost; send nothing");
  verb->add_flag("--json", f.json, "the report as one JSON object");
  verb->callback(
      [flags, &context] { context.run = [flags, &context] { synth_labels(*flags, context); }; });
}

}  // namespace erank::cli
