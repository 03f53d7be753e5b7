#include <chrono>
#include <cstdlib>
#include <fstream>
#include <future>
#include <iostream>
#include <thread>

#include "cli/checks.h"
#include "cli/model_options.h"
#include "cli/progress_line.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/serve/metrics.h"
#include "erank/serve/server.h"

namespace erank::cli {
namespace {

using base::ErrorKind;
using std::chrono::milliseconds;

constexpr const char* kExample =
    "Examples:\n"
    "  erank serve --port 8080\n"
    "  erank serve --host 0.0.0.0 --api-key-file keys.txt --access-log access.jsonl";

struct ServeFlags {
  ModelFlags model;
  serve::ServerOptions server;
  std::string api_key_file, access_log;
  double request_timeout = 600, drain_seconds = 30;
  int max_document_tokens = 0, max_query_tokens = 0;
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

// Lines of JSON for each request, at the end of a file or to stdout. Each is written at once, so
// that a file may be renamed or cut by whoever rotates it.
class AccessFile {
 public:
  explicit AccessFile(const std::string& name) {
    if (name == "-") return;
    file_.open(name, std::ios::app | std::ios::binary);
    if (!file_)
      base::fail(ErrorKind::kInvalidInput, "--access-log", name, ": cannot be written to");
  }
  void add(const serve::AccessRecord& record) {
    std::ostream& out = file_.is_open() ? file_ : std::cout;
    out << serve::access_line(record) + "\n" << std::flush;
    if (!out && !std::exchange(warned_, true))
      warn("--access-log: cannot write; requests go on without it until it can be");
    out.clear();
  }

 private:
  std::ofstream file_;
  bool warned_ = false;
};

// What is there when the model is loaded.
class Loaded {
 public:
  void set(std::shared_ptr<rank::Reranker> reranker) {
    const std::lock_guard lock(mutex_);
    reranker_ = std::move(reranker);
  }
  std::shared_ptr<rank::Reranker> get() const {
    const std::lock_guard lock(mutex_);
    return reranker_;
  }

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<rank::Reranker> reranker_;
};

serve::EngineFigures engine_figures(const Loaded& loaded, int64_t max_queued_pairs) {
  serve::EngineFigures figures;
  const auto reranker = loaded.get();
  if (!reranker) return figures;
  const rank::RerankerStats stats = reranker->stats();
  figures.ready = true;
  figures.queued_pairs = stats.queued_pairs;
  figures.max_queued_pairs = max_queued_pairs;
  figures.running = stats.engine.num_running;
  figures.waiting = stats.engine.num_waiting;
  figures.passes = stats.engine.steps;
  figures.computed_tokens = stats.engine.computed_tokens;
  figures.reused_tokens = stats.engine.cached_tokens;
  figures.new_tokens = stats.engine.new_tokens;
  figures.scored_pairs = stats.engine.num_done;
  figures.failed_pairs = stats.engine.num_failed;
  figures.cancelled_pairs = stats.engine.num_cancelled;
  figures.cache_pages = stats.engine.pages;
  figures.cache_pages_used = stats.engine.pages_used;
  return figures;
}

// Loads the model and scores one pair, so that the first client does not wait for memory.
std::shared_ptr<rank::Reranker> load_warm(const rank::RerankerOptions& options) {
  std::shared_ptr<rank::Reranker> reranker = rank::Reranker::load(options);
  rank::RankRequest request;
  request.query = "why is the sky blue";
  request.passages = {{"1", "Air scatters blue light more than red light.", {}}};
  const rank::Ranking ranking = reranker->rank(std::move(request));
  if (!ranking.failed.empty())
    base::fail(ErrorKind::kInvalidInput, "serve",
               "the model cannot score a pair: ", ranking.failed[0].error->message);
  return reranker;
}

void run_serve(const ServeFlags& f) {
  serve::ServerOptions options = f.server;
  if (!f.api_key_file.empty())
    for (auto& key : read_keys(f.api_key_file)) options.api_keys.push_back(std::move(key));
  for (const auto& key : options.api_keys)
    if (key.find_first_not_of(" \t") == key.npos)
      base::fail(ErrorKind::kInvalidInput, "--api-key",
                 "is empty, expected a secret of your choice");
  options.request_timeout = milliseconds(static_cast<int64_t>(f.request_timeout * 1000));

  Loaded loaded;
  const int64_t max_queued_pairs = f.model.options.max_queued_pairs;
  serve::Metrics metrics({"/health", "/ready", "/version", "/metrics"},
                         [&] { return engine_figures(loaded, max_queued_pairs); });
  std::optional<AccessFile> log;
  if (!f.access_log.empty()) log.emplace(f.access_log);
  options.on_request = [&](const serve::AccessRecord& record) {
    metrics.add(record);
    if (log) log->add(record);
  };
  serve::Server server(std::move(options), [&](serve::HttpRequest request,
                                               std::shared_ptr<serve::Responder> responder) {
    const bool ready = loaded.get() != nullptr;
    if (request.path == "/health")
      responder->send({200, R"({"status":"ok"})"});
    else if (request.path == "/ready")
      responder->send(
          {ready ? 200 : 503, ready ? R"({"status":"ready"})" : R"({"status":"loading"})"});
    else if (request.path == "/version")
      responder->send({200, R"({"version":")" ERANK_VERSION R"("})"});
    else if (request.path == "/metrics")
      responder->send({200, metrics.text(), serve::Metrics::kType});
    else
      responder->send({404, R"({"message":"there is no such route"})"});
  });
  std::thread io([&] { server.run(); });
  const auto end = [&](double seconds) {
    server.stop(milliseconds(static_cast<int64_t>(seconds * 1000)));
    if (io.joinable()) io.join();
  };

  // On a thread of its own, since a signal must end the program while it loads.
  rank::RerankerOptions model = f.model.resolved();
  if (f.max_document_tokens > 0) model.max_document_tokens = f.max_document_tokens;
  if (f.max_query_tokens > 0) model.max_query_tokens = f.max_query_tokens;
  std::promise<std::shared_ptr<rank::Reranker>> promise;
  auto future = promise.get_future();
  std::thread([promise = std::move(promise), model]() mutable {
    try {
      promise.set_value(load_warm(model));
    } catch (...) {
      promise.set_exception(std::current_exception());
    }
  }).detach();
  while (future.wait_for(milliseconds(50)) != std::future_status::ready)
    if (interrupted()) {
      end(0);
      std::_Exit(0);  // the thread that loads cannot be ended, and has nothing to save
    }
  try {
    loaded.set(future.get());
  } catch (...) {
    end(0);
    throw;
  }
  ProgressLine::print_above(base::str("erank: serving ", loaded.get()->model_name(), " (",
                                      loaded.get()->precision_name(), ") at ", server.url()));
  while (!interrupted()) std::this_thread::sleep_for(milliseconds(50));
  end(f.drain_seconds);
}

}  // namespace

void add_serve(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand("serve", "Answer rerank requests over HTTP");
  auto flags = std::make_shared<ServeFlags>();
  ServeFlags& f = *flags;
  f.model.options.max_queued_pairs = 4096;
  f.server.port = 8080;
  verb->footer(kExample);
  verb->add_option("--host", f.server.host,
                   "the address to listen on; 0.0.0.0 or :: for every one of this machine")
      ->capture_default_str();
  verb->add_option("--port", f.server.port, "the port to listen on; 0 takes a free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  f.model.add_to(*verb);
  verb->add_option("--max-doc-tokens", f.max_document_tokens,
                   "tokens of a document that are read at once (default: the checkpoint's)")
      ->check(positive_number());
  verb->add_option("--max-query-tokens", f.max_query_tokens, "cut queries to so many tokens")
      ->check(positive_number());
  verb->add_option("--api-key", f.server.api_keys,
                   "clients must send this key as Authorization: Bearer KEY; may be given several "
                   "times\n(others on this machine can read it here: better use the variable or "
                   "--api-key-file)")
      ->envname("ERANK_API_KEY");
  verb->add_option("--api-key-file", f.api_key_file, "a file with more keys, one a line");
  verb->add_option("--max-queued-pairs", f.model.options.max_queued_pairs,
                   "pairs that wait or are being scored; requests over it get 429")
      ->check(positive_number())
      ->capture_default_str();
  verb->add_option("--max-body-bytes", f.server.max_body_bytes,
                   "size of a request, e.g. 8MB; larger ones get 413 (default: 32MiB)")
      ->transform(CLI::AsSizeValue(false));
  verb->add_option("--max-connections", f.server.max_connections,
                   "clients that are connected at once; more get 503")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  verb->add_option("--request-timeout", f.request_timeout,
                   "seconds until a request without a reply gets 504; 0 is never")
      ->check(non_negative_number())
      ->capture_default_str();
  verb->add_option("--drain-seconds", f.drain_seconds,
                   "how long running requests may go on after SIGTERM or SIGINT")
      ->check(non_negative_number())
      ->capture_default_str();
  verb->add_option("--cors-origin", f.server.cors_origins,
                   "a page's origin, e.g. https://example.org, that may read replies in browsers; "
                   "'*' is every one");
  verb->add_option("--tls-cert", f.server.tls_certificate, "serve HTTPS with this PEM certificate");
  verb->add_option("--tls-key", f.server.tls_key, "the certificate's private key, PEM");
  verb->add_option("--access-log", f.access_log,
                   "append a JSON line for each request to this file; - is stdout");
  verb->callback([flags, &context] {
    context.ends_by_signal = true;
    context.run = [flags] { run_serve(*flags); };
  });
}

}  // namespace erank::cli
