// Collectives on tensors of GPUs, one GPU a rank.
#pragma once

#include <nccl.h>

#include "erank/train/communicator.h"

namespace erank::train {

// Work is queued on the device's default stream, on which libtorch computes: nothing waits for it.
class Nccl {
 public:
  // `ranks` carries the id by which they find each other. Throws Error{kInvalidInput}, as the
  // others do, with NCCL's own words.
  Nccl(Communicator& ranks, at::Device device);
  ~Nccl();
  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  void all_reduce(const at::Tensor& values);
  void broadcast(const at::Tensor& values, int root);

 private:
  ncclComm_t comm_ = nullptr;
};

}  // namespace erank::train
