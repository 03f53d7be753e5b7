#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "cli/calibrated.h"
#include "cli/checks.h"
#include "cli/model_options.h"
#include "cli/progress_line.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/eval/benchmarks.h"
#include "erank/serve/line_log.h"
#include "erank/serve/metrics.h"
#include "erank/serve/page.h"
#include "erank/serve/server.h"
#include "erank/serve/service.h"

namespace erank::cli {
namespace {

using base::ErrorKind;
using std::chrono::milliseconds;

constexpr const char* kExample =
    "Examples:\n"
    "  erank serve --port 8080\n"
    "  erank serve --max-think-tokens 512 --deadline-ms 4500\n"
    "  erank serve --host 0.0.0.0 --api-key-file keys.txt --access-log access.jsonl";

struct ServeFlags {
  ModelFlags model;
  serve::ServerOptions server;
  serve::ServiceOptions service;
  std::string api_key_file, access_log;
  double request_timeout = 600, drain_seconds = 30;
  int max_document_tokens = 0, max_query_tokens = 0, max_think_tokens = 0;
  std::string instruction, score, calibrated;
  bool think = false, direct = false;
  bool until_stdin_ends = false;
};

// One key a line; empty lines and those that begin with # are passed over.
std::vector<std::string> read_keys(const std::string& file) {
  std::vector<std::string> keys;
  std::istringstream in(base::read_file(file));
  for (std::string line; std::getline(in, line);) {
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == line.npos || line[begin] == '#') continue;
    keys.push_back(line.substr(begin, line.find_last_not_of(" \t\r") - begin + 1));
  }
  if (keys.empty())
    base::fail(ErrorKind::kInvalidInput, "--api-key-file", file,
               " holds no key, expected one a line");
  return keys;
}

// Lines of JSON for each request, at the end of a file or to stdout. Each is one write, at the end,
// so that whoever rotates the file may cut it (logrotate's copytruncate).
class AccessFile {
 public:
  explicit AccessFile(const std::string& name) {
    if (name != "-") {
      descriptor_ = ::open(name.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
      if (descriptor_ < 0)
        base::fail(ErrorKind::kInvalidInput, "--access-log", name, ": cannot be written to");
    }
    log_.emplace(descriptor_, serve::LineLogOptions{
                                  .dropped_line = serve::dropped_line, .on_fault = [] {
                                    warn(
                                        "--access-log: cannot write; requests go on without it "
                                        "until it can be");
                                  }});
  }
  ~AccessFile() {
    log_.reset();
    if (descriptor_ != STDOUT_FILENO) ::close(descriptor_);
  }
  void add(const serve::AccessRecord& record) { log_->add(serve::access_line(record)); }

 private:
  int descriptor_ = STDOUT_FILENO;
  std::optional<serve::LineLog> log_;
};

serve::EngineFigures engine_figures(const serve::ServiceStats& stats, int64_t max_queued_pairs) {
  const engine::EngineStats& engine = stats.reranker.engine;
  serve::EngineFigures figures;
  figures.ready = stats.ready;
  figures.waiting_calls = stats.waiting_calls;
  figures.running_calls = stats.running_calls;
  figures.queued_pairs = stats.queued_pairs;
  figures.max_queued_pairs = max_queued_pairs;
  figures.cached_results = stats.cached_results;
  figures.running = engine.num_running;
  figures.waiting = engine.num_waiting;
  figures.passes = engine.steps;
  figures.passes_by_sequences = engine.steps_by_sequences;
  figures.passes_by_tokens = engine.steps_by_tokens;
  figures.pass_sequences = engine.step_sequences;
  figures.computed_tokens = engine.computed_tokens;
  figures.reused_tokens = engine.cached_tokens;
  figures.new_tokens = engine.new_tokens;
  figures.scored_pairs = engine.num_done;
  figures.failed_pairs = engine.num_failed;
  figures.cancelled_pairs = engine.num_cancelled;
  figures.cache_pages = engine.pages;
  figures.cache_pages_used = engine.pages_used;
  return figures;
}

// The paper's instructions, by what they are for.
std::vector<std::pair<std::string, std::string>> presets() {
  const auto of = [](const char* name, const char* benchmark, const char* task) {
    return std::pair<std::string, std::string>(
        name, eval::instruction_of(eval::find_benchmark(benchmark), task));
  };
  return {of("passages", "beir", ""),
          of("answers to hard questions", "bright", "biology"),
          of("queries with requirements", "followir", ""),
          of("programming problems of a kind", "bright", "leetcode"),
          of("mathematics problems of a kind", "bright", "aops"),
          of("theorems for a problem", "bright", "theoremqa_theorems"),
          of("documentation for code", "bright", "pony")};
}

// The page's files, which a browser gets before it has a key to send.
void add_page(serve::Service& service) {
  for (const serve::PageFile& file : serve::page_files())
    service.add_route(std::string(file.path), [&file](const serve::HttpRequest&) {
      return serve::HttpReply{200,
                              std::string(file.body),
                              std::string(file.type),
                              {{"Content-Security-Policy", std::string(serve::kPagePolicy)},
                               {"X-Content-Type-Options", "nosniff"},
                               {"Referrer-Policy", "no-referrer"},
                               {"Cache-Control", "no-cache"}}};
    });
}

// The calibration that some request's scores may be for: what the model, its scale and how much it
// reads of a text are is the server's to say, the rest a request's.
serve::ServiceCalibration calibration_of(const std::string& named,
                                         const rank::RerankerOptions& options,
                                         const ScoringModel& model) {
  const auto found = find_calibration(named, options.model, true, [&](const eval::ScoredBy& then) {
    const eval::ScoredBy of_server = scored_by(model, {});
    eval::ScoredBy now = then;
    now.model = of_server.model, now.weights = of_server.weights, now.scale = of_server.scale;
    now.max_document_tokens = of_server.max_document_tokens;
    now.max_query_tokens = of_server.max_query_tokens;
    now.max_windows = of_server.max_windows;
    return now;
  });
  if (!found) return {};
  serve::ServiceCalibration calibration;
  calibration.relevance = [map = *found, model](
                              double score, const rank::ScoreOptions& o) -> std::optional<double> {
    if (map.scored_by && !eval::difference(*map.scored_by, scored_by(model, o)).empty())
      return std::nullopt;
    return map.probability(score);
  };
  calibration.info = {{"scored_by", nullptr}};
  if (found->scored_by) calibration.info["scored_by"] = eval::to_json(*found->scored_by);
  return calibration;
}

struct Loaded {
  serve::ServiceCalibration calibration;
  std::string files;  // digest of the model's
  std::shared_ptr<rank::Reranker> reranker;
};

// Loads the model and scores one pair, so that the first client does not wait for memory.
Loaded load_warm(const rank::RerankerOptions& options, const ModelFlags& flags,
                 const std::string& calibrated) {
  const ScoringModel model = scoring_model(flags, options);
  Loaded loaded{calibration_of(calibrated, options, model), model.files,
                rank::Reranker::load(options)};
  rank::RankRequest request;
  request.query = "why is the sky blue";
  request.passages = {{"1", "Air scatters blue light more than red light.", {}}};
  request.options.max_think_tokens = 8;
  const rank::Ranking ranking = loaded.reranker->rank(std::move(request));
  if (!ranking.failed.empty())
    base::fail(ErrorKind::kInvalidInput, "serve",
               "the model cannot score a pair: ", ranking.failed[0].error->message);
  return loaded;
}

// The same on a thread of its own, since a signal must end the program while it loads.
std::future<Loaded> start_loading(const ServeFlags& f) {
  rank::RerankerOptions options = f.model.resolved();
  if (f.max_document_tokens > 0) options.max_document_tokens = f.max_document_tokens;
  if (f.max_query_tokens > 0) options.max_query_tokens = f.max_query_tokens;
  if (f.max_think_tokens > 0) options.max_think_tokens = f.max_think_tokens;
  if (f.think || f.direct) options.mode = f.think ? rank::Mode::kThink : rank::Mode::kDirect;
  if (!f.score.empty()) options.score = rank::parse_score_kind(f.score, "--score");
  if (!f.instruction.empty()) options.instruction = f.instruction;
  // The service refuses what is too much; a call of many windows is no more than it let in.
  options.max_queued_pairs = 0;
  std::promise<Loaded> promise;
  auto future = promise.get_future();
  std::thread([promise = std::move(promise), options, flags = f.model,
               calibrated = f.calibrated]() mutable {
    try {
      promise.set_value(load_warm(options, flags, calibrated));
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
  }).detach();
  return future;
}

std::vector<std::string> all_keys(const ServeFlags& f) {
  std::vector<std::string> keys;
  const auto add = [&](const std::string& key, const char* where) {
    const size_t begin = key.find_first_not_of(" \t\r\n");
    if (begin == key.npos)
      base::fail(ErrorKind::kInvalidInput, where, "is empty, expected a secret of your choice");
    keys.push_back(key.substr(begin, key.find_last_not_of(" \t\r\n") - begin + 1));
  };
  for (const auto& key : f.server.api_keys) add(key, "--api-key");
  if (const char* key = std::getenv("ERANK_API_KEY")) add(key, "ERANK_API_KEY");
  if (!f.api_key_file.empty())
    for (auto& key : read_keys(f.api_key_file)) keys.push_back(std::move(key));
  return keys;
}

// Whether standard input has ended: the program that started this one is gone. Drops what comes.
bool stdin_ended() {
  pollfd in{STDIN_FILENO, POLLIN, 0};
  if (::poll(&in, 1, 0) <= 0) return false;
  char bytes[4096];
  return ::read(STDIN_FILENO, bytes, sizeof bytes) <= 0;
}

milliseconds ms(double seconds) { return milliseconds(static_cast<int64_t>(seconds * 1000)); }

void run_serve(const ServeFlags& f) {
  const serve::ApiDefaults& defaults = f.service.defaults;
  if (defaults.samples > 1 && defaults.temperature == 0)
    base::fail(ErrorKind::kInvalidInput, "--samples", defaults.samples,
               ", expected 1 without a --temperature above 0");
  serve::ServerOptions options = f.server;
  options.api_keys = all_keys(f);
  for (const serve::PageFile& file : serve::page_files())
    options.open_paths.emplace_back(file.path);
  // The service answers 504 itself; this is for what it cannot.
  if (f.request_timeout > 0) options.request_timeout = ms(f.request_timeout + 10);

  std::optional<serve::Metrics> metrics;  // once all routes are known
  std::optional<AccessFile> log;
  if (!f.access_log.empty()) log.emplace(f.access_log);
  options.on_request = [&](const serve::AccessRecord& record) {
    metrics->add(record);
    if (log) log->add(record);
  };

  serve::ServiceOptions service_options = f.service;
  service_options.max_body_bytes = options.max_body_bytes;
  service_options.request_timeout_ms = ms(f.request_timeout).count();
  service_options.version = ERANK_VERSION;
  service_options.instructions = presets();
  serve::Service service(
      service_options,
      {.on_pair =
           [&](const rank::PassageResult& result, bool computed) {
             metrics->add_cache_lookup(!computed);
             if (computed && !result.reasoning.empty()) metrics->add_reasoning(result.new_tokens);
           },
       .on_call = [&](const auto& call) { metrics->add_call(call.pairs, call.first_seconds); },
       .on_warning = [](const std::string& line) { warn(line); }});
  add_page(service);
  service.add_route("/metrics", [&](const serve::HttpRequest&) {
    return serve::HttpReply{200, metrics->text(), serve::Metrics::kType};
  });
  std::vector<std::string> paths;
  for (auto& [method, path] : service.routes()) paths.push_back(path);
  metrics.emplace(std::move(paths),
                  [&] { return engine_figures(service.stats(), f.service.max_queued_pairs); });

  options.fault_reply = serve::fault_reply;
  options.allow = [&](std::string_view path) { return service.allow(path); };

  serve::Server server(std::move(options), [&](serve::HttpRequest request,
                                               std::shared_ptr<serve::Responder> responder) {
    service.handle(std::move(request), std::move(responder));
  });
  std::thread io([&] { server.run(); });
  const auto end = [&](milliseconds drain) {
    service.drain();
    server.stop(drain);
    io.join();
  };
  const auto is_over = [&] { return interrupted() || (f.until_stdin_ends && stdin_ended()); };
  std::shared_ptr<rank::Reranker> reranker;
  try {
    std::future<Loaded> loading = start_loading(f);
    while (loading.wait_for(milliseconds(20)) != std::future_status::ready)
      if (is_over()) {
        end({});
        log.reset();    // writes what waits
        std::_Exit(0);  // the thread that loads cannot be ended, and has nothing to save
      }
    Loaded loaded = loading.get();
    reranker = loaded.reranker;
    service.set_reranker(reranker, loaded.files, std::move(loaded.calibration));
    ProgressLine::print_above(base::str("erank: serving ", reranker->model_name(), " (",
                                        reranker->precision_name(), ") at ", server.url()));
  } catch (...) {
    end({});
    throw;
  }
  std::string fault;
  while (!is_over() && (fault = reranker->stats().fault).empty())
    std::this_thread::sleep_for(milliseconds(50));
  end(ms(f.drain_seconds));
  // Nothing can be scored any more: whoever has started this process is to start it again.
  if (!fault.empty()) throw std::runtime_error(fault);
}

}  // namespace

void add_serve(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand("serve", "Answer rerank requests over HTTP");
  auto flags = std::make_shared<ServeFlags>();
  ServeFlags& f = *flags;
  f.server.port = 8080;
  verb->footer(kExample);
  verb->add_option("--host", f.server.host,
                   "the address to listen on, or a name, for each of its addresses; 0.0.0.0 or :: "
                   "for every one\nof this machine")
      ->capture_default_str();
  verb->add_option("--port", f.server.port, "the port to listen on; 0 takes a free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  f.model.add_to(*verb);
  const std::string by_default = " where a request does not say (default: the checkpoint's)";
  verb->add_option("--instruction", f.instruction, "what relevance means" + by_default);
  auto* think =
      verb->add_flag("--think", f.think, "let the model write its reasoning first" + by_default);
  verb->add_flag("--direct", f.direct, "read the answer at once" + by_default)->excludes(think);
  verb->add_option("--max-think-tokens", f.max_think_tokens,
                   "force an answer after so many tokens of reasoning" + by_default)
      ->check(CLI::Range(1, f.service.limits.max_think_tokens));
  verb->add_option("--score", f.score, "paper (s Pr(s)), expected or integer" + by_default)
      ->check(CLI::IsMember({"paper", "expected", "integer"}));
  verb->add_option(
          "--temperature", f.service.defaults.temperature,
          "sampling temperature of the reasoning where a request does not say; 0 is greedy")
      ->check(non_negative_number())
      ->capture_default_str();
  verb->add_option("--samples", f.service.defaults.samples,
                   "reasonings drawn of a pair, whose score is the mean of theirs, where a request "
                   "that reasons\ndoes not say; needs --temperature")
      ->check(CLI::Range(1, f.service.limits.max_samples))
      ->capture_default_str();
  verb->add_option("--seed", f.service.defaults.seed,
                   "random seed for sampling the reasoning where a request does not say")
      ->capture_default_str();
  verb->add_option("--deadline-ms", f.service.default_deadline_ms,
                   "answer so many milliseconds after a request came with the best that is known, "
                   "where\nthe request does not say (default: it waits for all)")
      ->check(positive_number());
  verb->add_option("--max-doc-tokens", f.max_document_tokens,
                   "tokens of a document that are read at once (default: the checkpoint's)")
      ->check(positive_number());
  verb->add_option("--max-query-tokens", f.max_query_tokens, "cut queries to so many tokens")
      ->check(positive_number());
  verb->add_option("--calibrated", f.calibrated,
                   "adds to results whose scores it is for their probability of relevance, by this "
                   "file of\nerank calibrate (default: the one that it stored beside the model)");
  verb->add_option("--api-key", f.server.api_keys,
                   "clients must send this key as Authorization: Bearer KEY; may be given several "
                   "times\n(others on this machine can read it here: better use ERANK_API_KEY "
                   "or --api-key-file)");
  verb->add_option("--api-key-file", f.api_key_file, "a file with more keys, one a line");
  verb->add_option("--max-queued-pairs", f.service.max_queued_pairs,
                   "pairs that wait or are being scored; requests over it get 429")
      ->check(positive_number())
      ->capture_default_str();
  verb->add_option("--max-documents", f.service.limits.max_documents,
                   "documents of a request, for all its queries; more get 413")
      ->check(positive_number())
      ->capture_default_str();
  verb->add_option("--cache-bytes", f.service.max_cache_bytes,
                   "memory for results that are kept for the same pair, e.g. 64MB; 0 is none "
                   "(default: 64MiB)")
      ->transform(CLI::AsSizeValue(false));
  verb->add_option("--cache-file", f.service.cache_file,
                   "keep results in this file, too, so that the next start has them");
  verb->add_option("--max-body-bytes", f.server.max_body_bytes,
                   "size of a request, e.g. 8MB; larger ones get 413 (default: 32MiB)")
      ->transform(CLI::AsSizeValue(false));
  verb->add_option("--max-connections", f.server.max_connections,
                   "clients that are connected at once; more get 503")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  verb->add_option("--request-timeout", f.request_timeout,
                   "seconds until a request without a reply gets 504; 0 is never")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  verb->add_option("--drain-seconds", f.drain_seconds,
                   "how long running requests may go on after SIGTERM or SIGINT")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  verb->add_option("--allowed-host", f.server.allowed_hosts,
                   "a further name, without port, that requests may have as their Host; may be "
                   "given several times\n(without keys, on a loopback address, only localhost, "
                   "127.0.0.1, [::1] and --host may be)");
  verb->add_option("--cors-origin", f.server.cors_origins,
                   "a page's origin, e.g. https://example.org, that may read replies in browsers; "
                   "'*' is every one");
  verb->add_option("--tls-cert", f.server.tls_certificate, "serve HTTPS with this PEM certificate");
  verb->add_option("--tls-key", f.server.tls_key, "the certificate's private key, PEM");
  verb->add_option("--access-log", f.access_log,
                   "append a JSON line for each request to this file; - is stdout");
  verb->add_flag("--until-stdin-ends", f.until_stdin_ends,
                 "end, as by SIGTERM, when standard input does: for a program that starts the "
                 "server\nand may be killed");
  verb->callback([flags, &context] {
    context.ends_by_signal = true;
    context.run = [flags] { run_serve(*flags); };
  });
}

}  // namespace erank::cli
