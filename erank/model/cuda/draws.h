// Draws of tokens on the device that computed their logits.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>

#include "erank/model/batch.h"

namespace erank::model::cuda {

// Of each row of logits [D, V] fp32 the draw of `drawings`, [D]: [D, 3] fp64 of the token, its
// logit and its log-probability, as engine::sample gives them but for rounding. `max`: [D, 1], the
// rows' largest logits. What comes of a row with a NaN or infinity means nothing. Thread-safe.
at::Tensor draw_tokens(const at::Tensor& logits, const at::Tensor& max,
                       std::span<const Drawing> drawings);

}  // namespace erank::model::cuda
