#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>
#include <string_view>

#include "cli/progress_line.h"
#include "cli/ranks.h"
#include "cli/verbs.h"
#include "erank/base/error.h"

namespace erank::cli {
namespace {

std::atomic<bool> g_interrupted{false};

// The first signal asks for an orderly end, the second ends at once.
void on_signal(int) {
  if (g_interrupted.exchange(true)) std::_Exit(130);
}

}  // namespace

bool interrupted() { return g_interrupted; }

void warn(const std::string& text) { ProgressLine::print_above("erank: warning: " + text); }

namespace {

// A stream that was closed before the start must not become the number of some file that is opened:
// what is printed would go there. Reading or writing these in its place is an error.
void fill_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (::fcntl(stream, F_GETFD) < 0)
      ::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

bool trains(int argc, char** argv) { return argc > 1 && argv[1] == std::string_view("train"); }

// libgomp reads its settings while the program is loaded. Its waiting threads spin by default,
// which takes processors from every other process and gains nothing here (docs/performance.md), so
// training, which computes on them, starts anew with sleeping ones; who has set either variable
// keeps it. Inference has threads of its own.
void start_with_sleeping_threads(int argc, char** argv) {
  if (!trains(argc, argv)) return;
  if (std::getenv("OMP_WAIT_POLICY") || std::getenv("GOMP_SPINCOUNT")) return;
  ::setenv("OMP_WAIT_POLICY", "PASSIVE", 1);
  ::execv("/proc/self/exe", argv);  // when it fails, spinning threads compute the same
}

// CLI11's message as our own kind of error: one line that says where there is more.
[[noreturn]] void fail_usage(const CLI::App& app, const CLI::ParseError& error) {
  std::string verb = "erank", text = error.what();
  for (auto verbs = app.get_subcommands(); !verbs.empty(); verbs = verbs[0]->get_subcommands())
    verb += " " + verbs[0]->get_name();
  std::replace(text.begin(), text.end(), '\n', ' ');
  base::fail(base::ErrorKind::kInvalidInput, "usage", text, "; see ", verb, " --help");
}

int run(int argc, char** argv) {
  CLI::App app{
      "erank: rerank documents with a reasoning language model, and measure how well.\n"
      "Every verb has --help with an example.",
      "erank"};
  app.set_version_flag("--version", "erank " ERANK_VERSION);
  app.require_subcommand(1);
  Context context;
  context.progress = std::make_unique<ProgressLine>();
  add_rerank(app, context);
  add_merge_outputs(app, context);
#ifndef ERANK_CORE_ONLY
  add_retrieve(app, context);
  add_index(app, context);
  add_search(app, context);
  add_demo(app, context);
  add_benchmark(app, context);
  add_synth(app, context);
  add_serve(app, context);
#endif
  add_fuse(app, context);
  add_eval(app, context);
  add_report(app, context);
  add_calibrate(app, context);
  add_data(app, context);
  add_tokenize(app, context);
  add_prompt(app, context);
  add_model(app, context);
  add_bench(app, context);
  add_train(app, context);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    fail_usage(app, e);
  }
  context.run();
  return g_interrupted && !context.ends_by_signal ? 130 : 0;
}

}  // namespace
}  // namespace erank::cli

static int run_and_report(int argc, char** argv) {
  erank::cli::fill_closed_streams();
  erank::cli::start_with_sleeping_threads(argc, argv);
  std::signal(SIGINT, erank::cli::on_signal);
  std::signal(SIGTERM, erank::cli::on_signal);
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);  // a write beyond `ulimit -f` fails as on a full disk
  std::ios::sync_with_stdio(false);
  const auto say = [](const std::string& text) {
    erank::cli::ProgressLine::print_above("erank: " + text);
  };
  const std::string too_little_memory =
      erank::base::str("out of memory; a smaller ",
                       erank::cli::trains(argc, argv) ? "--max-pass-tokens" : "--kv-cache-bytes",
                       " or a smaller model needs less");
  try {
    return erank::cli::run(argc, argv);
  } catch (const erank::base::Error& e) {
    say(e.what());
    return erank::cli::interrupted() ? 130 : 2;
  } catch (const std::bad_alloc&) {
    say(too_little_memory);
    return 2;
  } catch (const std::exception& e) {
    const std::string_view text = e.what();
    const std::string_view what = text.substr(0, text.find('\n'));  // libtorch appends a backtrace
    if (what.find("can't allocate memory") != what.npos ||
        what.find("out of memory") != what.npos) {
      say(too_little_memory);
      return 2;
    }
    say("internal error, please report it: " + std::string(what));
    return 1;
  }
}

// All that is ours is gone when run() returns. What remains is libtorch's tables, which take longer
// to free one by one than to build; the system frees them at once.
int main(int argc, char** argv) {
  int code = run_and_report(argc, argv);
  if (!std::cout.flush() && code == 0) {
    erank::cli::ProgressLine::print_above(
        "erank: stdout: cannot write all of it; is the disk full, or its reader gone?");
    code = 2;
  }
  std::fflush(nullptr);
  erank::cli::end_ranks(code);
  std::_Exit(code);
}
