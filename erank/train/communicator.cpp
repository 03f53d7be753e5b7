#include "erank/train/communicator.h"

#include <ATen/ops/from_blob.h>
#include <dlfcn.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <numeric>
#include <string_view>

#include "erank/base/error.h"
#include "erank/base/installed.h"
#include "erank/base/threads.h"

namespace erank::train {
namespace {

class Alone : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void all_reduce(const at::Tensor&) override {}
  void broadcast(const at::Tensor&, int) override {}
  void barrier() override {}
  void end_all(int) override { ERANK_CHECK(false, "alone"); }
};

// Lies beside the program, which loads it only where a launcher started it: so it runs, and starts
// as fast, where there is no MPI.
constexpr const char* kModule = "erank_mpi.so";

}  // namespace

Communicator& alone() {
  static Alone alone;
  return alone;
}

int num_launched() {
  // Of mpirun (Open MPI), of mpiexec and srun by PMI, of srun.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* text = std::getenv(name);
    int number = 0;
    if (text && std::from_chars(text, text + std::strlen(text), number).ec == std::errc() &&
        number > 1)
      return number;
  }
  return 1;
}

std::unique_ptr<Communicator> join_launched(
    std::function<void(Communicator&, const std::string& line)> on_lost) {
  const int launched = num_launched();
  const std::string path = base::find_installed(kModule);
  void* module = path.empty() ? nullptr : ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!module)
    base::fail(base::ErrorKind::kInvalidInput, "train", "a launcher started ", launched,
               " processes, but this build has no MPI (",
               path.empty() ? base::str("no ", kModule) : std::string(::dlerror()),
               "); install libopenmpi-dev and openmpi-bin and build again, or start one process");
  using Join = Communicator* (*)(std::function<void(Communicator&, const std::string&)>);
  const auto join = reinterpret_cast<Join>(::dlsym(module, "erank_join_mpi"));
  ERANK_CHECK(join, "another version's erank_mpi.so");
  std::unique_ptr<Communicator> ranks(join(std::move(on_lost)));
  if (ranks->size() != launched)
    base::fail(base::ErrorKind::kInvalidInput, "train", "the launcher started ", launched,
               " processes, but MPI knows of ", ranks->size(),
               "; start them with mpirun of Open MPI, or with srun --mpi=pmix");
  return ranks;
}

Seat find_seat(Communicator& ranks) {
  if (ranks.size() == 1) return {0, base::num_processors()};
  cpu_set_t processors;
  CPU_ZERO(&processors);
  ::sched_getaffinity(0, sizeof processors, &processors);
  char host[256] = {};
  ::gethostname(host, sizeof host - 1);
  const std::hash<std::string_view> hash;
  const auto number = [](size_t bits) { return static_cast<double>(bits >> 12); };  // exact
  const auto hosts = gather(ranks, number(hash(host)));
  const auto sets =
      gather(ranks, number(hash({reinterpret_cast<const char*>(&processors), sizeof processors})));
  Seat seat;
  int sharing = 0;
  for (size_t i = 0; i < hosts.size(); ++i) {
    const auto me = static_cast<size_t>(ranks.rank());
    if (hosts[i] != hosts[me]) continue;
    seat.local_rank += i < me;
    sharing += sets[i] == sets[me];
  }
  seat.num_threads = std::max(1, base::num_processors() / sharing);
  return seat;
}

std::vector<int> share_out(const std::vector<int64_t>& costs, int num_ranks) {
  std::vector<size_t> order(costs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  std::vector<int64_t> load(static_cast<size_t>(num_ranks), 0);
  std::vector<int> ranks(costs.size());
  for (const size_t i : order) {
    const auto least = std::min_element(load.begin(), load.end());
    *least += costs[i];
    ranks[i] = static_cast<int>(least - load.begin());
  }
  return ranks;
}

std::vector<size_t> own_share(const std::vector<int64_t>& costs, const Communicator& ranks) {
  const auto shares = share_out(costs, ranks.size());
  std::vector<size_t> own;
  for (size_t i = 0; i < shares.size(); ++i)
    if (shares[i] == ranks.rank()) own.push_back(i);
  return own;
}

void all_sum(Communicator& ranks, std::span<double> values) {
  if (ranks.size() == 1 || values.empty()) return;
  ranks.all_reduce(at::from_blob(values.data(), {std::ssize(values)}, at::kDouble));
}

void all_sum(Communicator& ranks, std::span<float> values) {
  if (ranks.size() == 1 || values.empty()) return;
  ranks.all_reduce(at::from_blob(values.data(), {std::ssize(values)}, at::kFloat));
}

void all_sum(Communicator& ranks, std::initializer_list<double*> values) {
  std::vector<double> all;
  for (const double* value : values) all.push_back(*value);
  all_sum(ranks, all);
  for (size_t i = 0; double* value : values) *value = all[i++];
}

void all_sum(Communicator& ranks, std::initializer_list<int64_t*> values) {
  std::vector<double> all;
  for (const int64_t* value : values) all.push_back(static_cast<double>(*value));
  all_sum(ranks, all);
  for (size_t i = 0; int64_t * value : values) *value = static_cast<int64_t>(all[i++]);
}

bool any(Communicator& ranks, bool value) {
  double count = value ? 1 : 0;
  all_sum(ranks, {&count});
  return count > 0;
}

std::vector<double> gather(Communicator& ranks, double value) {
  std::vector<double> all(static_cast<size_t>(ranks.size()), 0);
  all[static_cast<size_t>(ranks.rank())] = value;
  all_sum(ranks, all);
  return all;
}

}  // namespace erank::train
