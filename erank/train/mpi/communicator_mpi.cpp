// Ranks by MPI: the module erank_mpi.so. CUDA tensors go through NCCL where the build has it, else
// through the CPU.
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "erank/base/error.h"
#include "erank/train/communicator.h"
#ifdef ERANK_NCCL
#include "erank/train/mpi/nccl.h"
#endif

namespace erank::train {
namespace {

using Clock = std::chrono::steady_clock;
using OnLost = std::function<void(Communicator&, const std::string& line)>;

constexpr int64_t kMostAtOnce = int64_t{1} << 28;  // MPI counts in int
constexpr int kBeat = 1;                           // a message's tag
constexpr int kMissedBeats = 20;                   // of a second each

void check(int code, const char* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int size = 0;
  MPI_Error_string(code, text, &size);
  base::fail(base::ErrorKind::kInvalidInput, "MPI", what, ": ", std::string(text, size));
}

class MpiCommunicator : public Communicator {
 public:
  explicit MpiCommunicator(OnLost on_lost) : on_lost_(std::move(on_lost)) {
    int given = 0;
    check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &given), "MPI_Init_thread");
    if (given < MPI_THREAD_MULTIPLE)
      base::fail(base::ErrorKind::kInvalidInput, "MPI",
                 "this MPI does not allow calls from several threads; use Open MPI");
    check(MPI_Comm_dup(MPI_COMM_WORLD, &beats_), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_set_errhandler(beats_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &size_);
    watch_ = std::jthread([this](const std::stop_token& stop) { watch(stop); });
  }
  ~MpiCommunicator() override {
    barrier();
    watch_.request_stop();
    watch_.join();
#ifdef ERANK_NCCL
    gpu_.reset();
#endif
    MPI_Finalize();
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void all_reduce(const at::Tensor& values) override {
    const bool single = values.scalar_type() == at::kFloat;
    ERANK_CHECK(values.is_contiguous() && (single || values.scalar_type() == at::kDouble));
    barrier();
    if (through_gpu(values, [&](auto& gpu) { gpu.all_reduce(values); })) return;
    const at::Tensor here = values.to(at::kCPU);  // itself where it is there
    for_pieces(here, here.element_size(), [&](void* data, int count) {
      check(MPI_Allreduce(MPI_IN_PLACE, data, count, single ? MPI_FLOAT : MPI_DOUBLE, MPI_SUM,
                          MPI_COMM_WORLD),
            "MPI_Allreduce");
    });
    if (!values.is_cpu()) values.copy_(here);
  }
  void broadcast(const at::Tensor& values, int root) override {
    ERANK_CHECK(values.is_contiguous() && root >= 0 && root < size_);
    barrier();
    if (through_gpu(values, [&](auto& gpu) { gpu.broadcast(values, root); })) return;
    const at::Tensor here = values.to(at::kCPU);
    for_pieces(here, 1, [&](void* data, int count) {
      check(MPI_Bcast(data, count, MPI_BYTE, root, MPI_COMM_WORLD), "MPI_Bcast");
    });
    if (!values.is_cpu()) values.copy_(here);
  }
  // Ranks do not come at the same time, and MPI's own waiting spins on a processor that a slower
  // rank may need: every collective waits here, asleep.
  void barrier() override {
    MPI_Request request;
    check(MPI_Ibarrier(MPI_COMM_WORLD, &request), "MPI_Ibarrier");
    const auto start = Clock::now();
    for (int done = 0;;) {
      check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done) return;
      const auto waited = Clock::now() - start;
      std::this_thread::sleep_for(std::min<Clock::duration>(waited / 8, kLongestNap));
    }
  }
  void end_all(int exit_code) override { MPI_Abort(MPI_COMM_WORLD, exit_code); }

 private:
  static constexpr std::chrono::milliseconds kLongestNap{2};

  template <class Body>
  void for_pieces(const at::Tensor& tensor, int64_t size, const Body& body) {
    auto* data = static_cast<char*>(tensor.mutable_data_ptr());
    const auto count = static_cast<int64_t>(tensor.nbytes()) / size;
    for (int64_t first = 0; first < count; first += kMostAtOnce)
      body(data + first * size, static_cast<int>(std::min(kMostAtOnce, count - first)));
  }
  template <class Body>
  bool through_gpu(const at::Tensor& values, const Body& body) {
#ifdef ERANK_NCCL
    if (!values.is_cuda()) return false;
    if (!gpu_) gpu_ = std::make_unique<Nccl>(*this, values.device());
    body(*gpu_);
    return true;
#else
    return false;
#endif
  }

  // Every rank tells rank 0 each second that it is alive, and rank 0 tells every one. Seconds are
  // counted, not measured: a rank that was stopped itself has not missed what came meanwhile.
  void watch(const std::stop_token& stop) {
    std::vector<int> peers;
    for (int peer = rank_ == 0 ? 1 : 0; peer < (rank_ == 0 ? size_ : 1); ++peer)
      peers.push_back(peer);
    std::vector<MPI_Request> sends(peers.size(), MPI_REQUEST_NULL);
    std::vector<int> missed(peers.size(), 0);
    std::mutex mutex;
    std::condition_variable_any wake;
    while (true) {
      for (size_t i = 0; i < peers.size(); ++i) {
        int sent = 0, there = 0;
        MPI_Test(&sends[i], &sent, MPI_STATUS_IGNORE);
        if (sent) MPI_Isend(nullptr, 0, MPI_BYTE, peers[i], kBeat, beats_, &sends[i]);
        ++missed[i];
        while (MPI_Iprobe(peers[i], kBeat, beats_, &there, MPI_STATUS_IGNORE) == MPI_SUCCESS &&
               there) {
          MPI_Recv(nullptr, 0, MPI_BYTE, peers[i], kBeat, beats_, MPI_STATUS_IGNORE);
          missed[i] = 0;
        }
        if (missed[i] > kMissedBeats)
          on_lost_(*this, base::str("rank ", peers[i], " has given no sign of life for ",
                                    kMissedBeats, " s"));
      }
      std::unique_lock lock(mutex);
      if (wake.wait_for(lock, stop, std::chrono::seconds(1), [] { return false; }) ||
          stop.stop_requested())
        break;
    }
    for (auto& send : sends)
      if (send != MPI_REQUEST_NULL) MPI_Request_free(&send);
  }

  OnLost on_lost_;
  MPI_Comm beats_ = MPI_COMM_NULL;
  int rank_ = 0, size_ = 1;
#ifdef ERANK_NCCL
  std::unique_ptr<Nccl> gpu_;
#endif
  std::jthread watch_;
};

}  // namespace
}  // namespace erank::train

extern "C" __attribute__((visibility("default"))) erank::train::Communicator* erank_join_mpi(
    std::function<void(erank::train::Communicator&, const std::string&)> on_lost) {
  return new erank::train::MpiCommunicator(std::move(on_lost));
}
