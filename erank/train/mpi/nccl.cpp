#include "erank/train/mpi/nccl.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/DeviceGuard.h>

#include "erank/base/error.h"

namespace erank::train {
namespace {

constexpr cudaStream_t kDefaultStream = nullptr;

void check(ncclResult_t result, const char* what) {
  if (result == ncclSuccess) return;
  base::fail(base::ErrorKind::kInvalidInput, "NCCL", what, ": ", ncclGetErrorString(result), "; ",
             ncclGetLastError(nullptr));
}

}  // namespace

Nccl::Nccl(Communicator& ranks, at::Device device) {
  ncclUniqueId id;
  if (ranks.rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
  ranks.broadcast(at::from_blob(&id, {static_cast<int64_t>(sizeof id)}, at::kByte), 0);
  const c10::DeviceGuard guard(device);
  check(ncclCommInitRank(&comm_, ranks.size(), id, ranks.rank()), "ncclCommInitRank");
}

Nccl::~Nccl() { ncclCommDestroy(comm_); }

void Nccl::all_reduce(const at::Tensor& values) {
  const c10::DeviceGuard guard(values.device());
  void* data = values.mutable_data_ptr();
  check(ncclAllReduce(data, data, static_cast<size_t>(values.numel()),
                      values.scalar_type() == at::kFloat ? ncclFloat32 : ncclFloat64, ncclSum,
                      comm_, kDefaultStream),
        "ncclAllReduce");
}

void Nccl::broadcast(const at::Tensor& values, int root) {
  const c10::DeviceGuard guard(values.device());
  void* data = values.mutable_data_ptr();
  check(ncclBroadcast(data, data, values.nbytes(), ncclUint8, root, comm_, kDefaultStream),
        "ncclBroadcast");
}

}  // namespace erank::train
