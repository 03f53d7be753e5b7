// AdamW (arXiv 1711.05101) on fp32 masters, as torch.optim.AdamW computes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "erank/model/adapter.h"
#include "erank/train/communicator.h"

namespace erank::train {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;
  double clip_norm = 1;  // of all gradients together, before the step; 0: never clipped
};

// Owns what training a set of parameters needs beside them: fp32 masters of those that are not fp32
// themselves, fp32 gradients, and both moments. Several ranks add up their gradients and hold the
// same parameters; masters and moments of a parameter are at one rank, which updates it for all.
// Not thread-safe.
class AdamW {
 public:
  // Turns requires_grad on for every parameter.
  AdamW(std::vector<model::NamedTensor> parameters, const AdamWOptions& options,
        Communicator& ranks = alone());

  // loss.backward(), and what came into the parameters is added to the fp32 gradients.
  void backward(const at::Tensor& loss);

  // The rest are collectives.
  // Clips, steps, writes the parameters, forgets the gradients. Returns the gradients' norm before
  // clipping. When that is not finite, nothing but the gradients was changed.
  double step(double learning_rate);
  // Whether every value of parameters, masters and moments is.
  bool is_finite() const;

  // Masters (where there are some) and moments as a file for checkpoints, the same whatever the
  // number of ranks: `<parameter>.exp_avg`, `<parameter>.exp_avg_sq`, `<parameter>.master`. Rank 0
  // writes it.
  void save(const std::string& path) const;
  // Takes it back, after `num_steps` steps; parameters that have masters are written from them, the
  // others must be there. Throws Error{kCorrupt} naming what is missing.
  void load(const std::string& path, int64_t num_steps);
  int64_t num_steps() const { return num_steps_; }

  int64_t num_values() const;  // trained
  // Beside the parameters, at the rank that has most: also the gradients of a pass.
  int64_t state_bytes() const;

 private:
  struct Slot {
    model::NamedTensor parameter;
    int owner = 0;                           // the rank that has what follows; undefined elsewhere
    at::Tensor master, exp_avg, exp_avg_sq;  // master: the parameter itself when it is fp32

    bool has_master() const { return parameter.tensor.scalar_type() != at::kFloat; }
  };
  struct Part {
    std::string name;
    size_t slot;
    at::Tensor Slot::*tensor;
  };
  bool owns(const Slot& slot) const { return slot.owner == ranks_.rank(); }
  std::vector<Part> parts() const;
  at::Tensor gradient(size_t slot) const;
  void exchange_parameters();

  AdamWOptions options_;
  Communicator& ranks_;
  std::vector<Slot> slots_;
  std::vector<int64_t> starts_;  // of each slot's values among all; one more than slots
  at::Tensor gradients_;  // [values] fp32, of the step's passes so far; undefined before the first
  int64_t num_steps_ = 0;
};

}  // namespace erank::train
