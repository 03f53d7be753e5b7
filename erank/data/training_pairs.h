// What `erank train sft` learns from: pairs with a teacher's score, as JSON lines that any tool may
// write (docs/formats.md, "Training pairs").
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "erank/base/progress.h"
#include "erank/data/records.h"

namespace erank::data {

struct TrainingPair {
  std::string qid, docid;
  std::string query, text;
  std::optional<std::string> instruction;  // nullopt: the model's default
  int score = 0;                           // 0..max_score, the integer to answer
  // The teacher's probabilities of 0..max_score, adding up to 1, 0 above; nullopt: the teacher gave
  // the score alone.
  std::optional<std::array<double, 11>> distribution;
  std::optional<std::string> thought;  // the reasoning before the answer; nullopt: none
  int64_t line = 0;                    // of the file (of an array: its element), from 1
};

// Reads {qid, docid, query, text, score and/or distribution, thought?, instruction?} a line, or one
// array of them; other keys are ignored; uncompressed, .gz or .zst. `score` is a number in
// 0..max_score, rounded to the nearest integer (halves up); without it the distribution's most
// probable value (the lowest of equals) is taken. Throws Error{kInvalidInput} with the line number
// for a missing or wrong key, a distribution that is not max_score + 1 numbers >= 0 adding up to 1
// within 1e-3 (it is then scaled to 1), or a pair (qid, docid) twice under one instruction; and
// when there is no pair at all. REQUIRES: 1 <= max_score <= 10.
std::vector<TrainingPair> read_training_pairs(const std::string& path,
                                              base::ProgressSink* progress = nullptr,
                                              ReadNotes* notes = nullptr, int max_score = 10);

// qid -> docid -> score.
using PairScores = std::unordered_map<std::string, std::unordered_map<std::string, double>>;

// Reads {qid, docid, integer and/or score} a line or one array, such as `erank rerank` writes;
// other keys are ignored; uncompressed, .gz or .zst. `integer` is taken, without it `score`; a line
// on which both are missing or null holds no score. Throws Error{kInvalidInput} with the line
// number for a number outside 0..max_score and a pair twice.
PairScores read_pair_scores(const std::string& path, ReadNotes* notes = nullptr,
                            int max_score = 10);

}  // namespace erank::data
