// Several processes that train one model together: mpirun or srun starts them, each runs the same
// program. What every process must do alike is called a collective: all call it, in one order.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace erank::train {

// Not thread-safe. A process that is lost while others wait for it ends them all.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;  // 0 .. size() - 1
  virtual int size() const = 0;

  // Collectives. Tensors are contiguous, on the CPU or the process's GPU, of one shape everywhere.
  // `values`, fp32 or fp64, become their sum over the ranks.
  virtual void all_reduce(const at::Tensor& values) = 0;
  // `values`, of any type, become those of rank `root`.
  virtual void broadcast(const at::Tensor& values, int root) = 0;
  // Returns when every rank has called it.
  virtual void barrier() = 0;

  // Ends every process, this one too, as failed. From any thread.
  virtual void end_all(int exit_code) = 0;
};

// One process alone: nothing to be exchanged.
Communicator& alone();

// How many processes a launcher started this one with; 1 without a launcher.
int num_launched();

// Joins them; its destructor waits for the other ranks. `on_lost` is called from another thread
// when a rank has given no sign of life for 20 s; it must end the program. Throws
// Error{kInvalidInput} when this build has no MPI, or MPI knows of another number of processes than
// the launcher. REQUIRES: num_launched() > 1, called once.
std::unique_ptr<Communicator> join_launched(
    std::function<void(Communicator&, const std::string& line)> on_lost);

// Where a rank runs.
struct Seat {
  int local_rank = 0;   // among the ranks of its machine
  int num_threads = 1;  // its share of the processors that it may use
};
// Collective.
Seat find_seat(Communicator& ranks);

// Parts of work with these costs -> the rank that does each, so that ranks have about the same: the
// most costly first, each to the one that has least. The same on every rank.
std::vector<int> share_out(const std::vector<int64_t>& costs, int num_ranks);
// The numbers of those that fall to this rank, ascending.
std::vector<size_t> own_share(const std::vector<int64_t>& costs, const Communicator& ranks);

// Collectives on plain numbers: each becomes its sum over the ranks.
void all_sum(Communicator& ranks, std::span<double> values);
void all_sum(Communicator& ranks, std::span<float> values);
void all_sum(Communicator& ranks, std::initializer_list<double*> values);
void all_sum(Communicator& ranks, std::initializer_list<int64_t*> values);  // exact below 2^53
// True when it is on any rank.
bool any(Communicator& ranks, bool value);
// [size()] every rank's value.
std::vector<double> gather(Communicator& ranks, double value);

}  // namespace erank::train
