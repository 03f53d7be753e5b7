// Checkpoints of a few hundred kilobytes: random ones, and ones that write what the test says.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "erank/rank/reranker.h"

namespace erank::rank {

// A folder with config, random weights (seeded, so large that scores differ clearly) and the byte
// tokenizer: id = byte, 258 = <|im_end|>, 259 = <think>, 260 = </think>, then "~261" and so on.
std::string random_checkpoint(const std::string& name, uint64_t seed = 1);

// The same with weights for which the next token is successors[token], with a probability of nearly
// 1; what follows another one is left open. Every prompt ends with '\n'.
std::string chain_checkpoint(const std::string& name, const std::map<int, int>& successors);

// Random weights of which the embedding of one token is not a number.
std::string damaged_checkpoint(const std::string& name, int token);

// Byte by byte, then `last` after the final one: {'\n' -> text[0], ..., text.back() -> last}.
std::map<int, int> spelled(const std::string& text, int last);

// A query about the sky, with little room for reasoning.
RankRequest request_of(std::vector<Passage> passages, Mode mode);

std::map<std::string, PassageResult> by_id(const Ranking& ranking);

constexpr int kEndOfTurn = 258, kThinkClose = 260;

// fp32 on one thread.
RerankerOptions tiny_options(const std::string& model);

}  // namespace erank::rank
