#include "cli/ranks.h"

#include <chrono>
#include <thread>

#include "cli/progress_line.h"
#include "erank/base/error.h"
#include "erank/train/communicator.h"

namespace erank::cli {
namespace {

// Never destroyed where an error ends the program: the others would be waited for.
train::Communicator* g_ranks = nullptr;

void on_lost(train::Communicator& ranks, const std::string& line) {
  ProgressLine::print_above("erank: " + line +
                            "; the job ends, and goes on from its newest checkpoint with --resume");
  ranks.end_all(2);
}

}  // namespace

void with_ranks(Context& context, const std::function<void(train::Communicator& ranks)>& work) {
  if (train::num_launched() == 1) return work(train::alone());
  std::unique_ptr<train::Communicator> ranks = train::join_launched(on_lost);
  g_ranks = ranks.get();
  if (g_ranks->rank() > 0) {
    context.progress.reset();
    ProgressLine::set_prefix(base::str("rank ", g_ranks->rank(), ": "));
  }
  try {
    work(*ranks);
  } catch (...) {
    ranks.release();
    // What is wrong on every rank rank 0 says, and ends the others.
    if (g_ranks->rank() > 0) std::this_thread::sleep_for(std::chrono::seconds(2));
    throw;
  }
  g_ranks = nullptr;
}

void end_ranks(int exit_code) {
  if (g_ranks) g_ranks->end_all(exit_code != 0 ? exit_code : 1);
}

}  // namespace erank::cli
