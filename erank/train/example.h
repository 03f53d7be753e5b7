// From a training pair to ids and what is learned from them. Pure integers and weights;
// thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "erank/data/training_pairs.h"
#include "erank/text/prompt_format.h"
#include "erank/text/tokenizer.h"

namespace erank::train {

// One addend of the loss: -weight log p(token), or with `complement` -weight log(1 - p(token)), p
// being the probability of the token at ids[row] of a branch (row 0: the first after
// the prompt).
struct LossTerm {
  int32_t row = 0;
  int32_t token = 0;
  float weight = 1;
  bool complement = false;
};

// One continuation of a prompt. The ids are what the network reads; those after the last row
// are dropped, since nothing is learned from them.
struct Branch {
  text::Ids ids;
  std::vector<LossTerm> terms;
  // Tokens that are learned; an integer learned softly is one of them. 0: the branch is only read.
  int64_t num_learned = 1;
  bool thinking = false;  // the reasoning comes first
  int32_t integer = 0;    // where in ids the answer's integer begins, as ExampleWriter writes it
};

struct Example {
  std::string qid;
  text::Ids prompt;
  std::vector<Branch> branches;
  double score = 0;  // the teacher's, on the scale; of a distribution its mean
  // With ExampleOptions::rank: of all the branches' terms, one after another, this one has weight 0
  // and is where the direct answer or its first digit is read; on the scale 0..10 the next one is
  // where what follows a "1" is.
  int32_t rank_term = -1;

  int64_t num_tokens() const;  // of the prompt and every branch
  int64_t length() const;      // of the prompt and its longest branch: what the model reads at once
};

// Which answers a pair teaches.
enum class Modes {
  kBoth,    // the direct answer, and the reasoning where there is one: two branches of one prompt
  kDirect,  // the direct answer alone
  kThink,   // the reasoning where there is one, else the direct answer
};

struct ExampleOptions {
  Modes modes = Modes::kBoth;
  // Learn the teacher's distribution where there is one; false: the integer alone.
  bool soft = true;
  bool rank = false;  // make the direct answer's whole distribution readable: Example::rank_term
  std::string default_instruction{text::kDefaultInstruction};
};

// Writes the ids exactly as serving does: the prompt as PromptFormat renders it; the direct branch
// is direct_close() and the integer; the thinking branch is think_open(), the reasoning,
// think_close(), the integer, answer_close() and the end of the turn. Learned are: in the direct
// branch the integer (and, for the hard integer, that answer_close() follows), in the thinking
// branch everything after think_open().
//
// A distribution q over 0..10 is learned where its digits are read: the row of the first digit has
// the cross entropy against Q(d), Q(1) = q[1] + q[10], and the row after "1" has q[10] and q[1]
// against Pr("0") and 1 - Pr("0"), weighted by Q(1): together the cross entropy of q and the
// distribution that ScoreDistribution reads (docs/training.md). The two rows are one learned token.
// On the other scales there is the first row alone.
class ExampleWriter {
 public:
  // Throws Error{kInvalidInput} when the tokenizer does not spell the ten digits, or the scale's
  // answers, as one token each.
  ExampleWriter(const text::PromptFormat& format, const text::Tokenizer& tokenizer,
                ExampleOptions options);

  Example write(const data::TrainingPair& pair) const;
  // Of "0".."9", or the scale's answers where all are one token.
  const text::Ids& digits() const { return digits_; }

  // Whether serving, when the model writes what a thinking branch teaches, reads the answer where
  // the branch has its integer: no stop token and no other answer come before it. True of examples
  // without reasoning. `example`: what write() gave.
  bool reads_back(const Example& example) const;

 private:
  const text::PromptFormat* format_;
  const text::Tokenizer* tokenizer_;
  ExampleOptions options_;
  text::Scale scale_;
  text::Ids digits_, answer_close_;  // digits(); answer_close() and the end of the turn

  void add_rank_terms(Example& example) const;
  void add_integer(Branch& branch, const data::TrainingPair& pair, bool thinking) const;
  text::Ids spell(int score) const;
};

}  // namespace erank::train
