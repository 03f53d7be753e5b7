// AdamW (arXiv 1711.05101) on fp32 masters, as torch.optim.AdamW computes it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "erank/model/adapter.h"

namespace erank::train {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;
  double clip_norm = 1;  // of all gradients together, before the step; 0: never clipped
};

// Owns what training a set of parameters needs beside them: fp32 masters of those that are not fp32
// themselves, fp32 gradients, and both moments. Not thread-safe.
class AdamW {
 public:
  // Turns requires_grad on for every parameter.
  AdamW(std::vector<model::NamedTensor> parameters, const AdamWOptions& options);

  // loss.backward(), and what came into the parameters is added to the fp32 gradients.
  void backward(const at::Tensor& loss);
  // Clips, steps, writes the parameters, forgets the gradients. Returns the gradients' norm before
  // clipping. When that is not finite, nothing but the gradients was changed.
  double step(double learning_rate);
  // Whether every value of parameters, masters and moments is.
  bool is_finite() const;

  // Masters (where there are some) and moments, for checkpoints: `<parameter>.exp_avg`,
  // `<parameter>.exp_avg_sq`, `<parameter>.master`.
  std::vector<model::NamedTensor> state();
  int64_t num_steps() const { return num_steps_; }
  // After state() was filled from a checkpoint: also writes the parameters from their masters.
  void restored(int64_t num_steps);

  int64_t num_values() const;   // trained
  int64_t state_bytes() const;  // beside the parameters

 private:
  struct Slot {
    model::NamedTensor parameter;
    at::Tensor master;    // the parameter itself when it is fp32
    at::Tensor gradient;  // of the step's passes so far; undefined before the first
    at::Tensor exp_avg, exp_avg_sq;
  };
  AdamWOptions options_;
  std::vector<Slot> slots_;
  int64_t num_steps_ = 0;
};

}  // namespace erank::train
