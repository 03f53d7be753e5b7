// Log-probabilities from logits, differentiable. Letters: R rows of logits, V the vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace erank::train {

// logits [R, V] fp32 or fp64; rows and tokens [M] int64 on its device -> [M]:
// log softmax(logits[row] / temperature)[token]. Only logits are kept for the backward pass, which
// makes one more buffer of their size; gradients once.
at::Tensor log_probs(const at::Tensor& logits, const at::Tensor& rows, const at::Tensor& tokens,
                     double temperature = 1);

// log(1 - exp(log_p)), away from its pole: log_p above -1e-6 counts as -1e-6.
at::Tensor log_complement(const at::Tensor& log_p);

// The entropy of each row's softmax(logits / temperature) in nats, [R], without a gradient.
at::Tensor row_entropies(const at::Tensor& logits, double temperature = 1);

// Where the logits of D direct answers are.
struct AnswerRows {
  std::vector<int64_t> first;      // [D] of the answer, or its first digit
  std::vector<int64_t> after_one;  // [D] of what follows a "1" there; empty but on the scale 0..10
  std::vector<int32_t> tokens;     // ids of the scale's answers; on 0..10 of "0".."9"
};

// logits [R, V] -> [D, K]: log-probabilities of the scale's K answers over the whole vocabulary at
// temperature 1, which need not sum to 1. On 0..10, log p[10] = log Pr("1") + log Pr("0" | "1") and
// log p[1] = log Pr("1") + log(1 - Pr("0" | "1")), as text::ScoreDistribution reads them.
at::Tensor answer_log_probs(const at::Tensor& logits, const AnswerRows& rows);

}  // namespace erank::train
