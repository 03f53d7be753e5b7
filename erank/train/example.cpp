#include "erank/train/example.h"

#include <algorithm>
#include <span>

#include "erank/base/error.h"
#include "erank/rank/answer_watcher.h"

namespace erank::train {
namespace {

void append(text::Ids& ids, const text::Ids& more) {
  ids.insert(ids.end(), more.begin(), more.end());
}

// Adds ids that are learned, every one.
void learn(Branch& branch, const text::Ids& ids) {
  for (const int32_t id : ids) {
    branch.terms.push_back({static_cast<int32_t>(branch.ids.size()), id});
    branch.ids.push_back(id);
    ++branch.num_learned;
  }
}

void drop_tail(Branch& branch) {
  int32_t last = 0;
  for (const LossTerm& term : branch.terms) last = std::max(last, term.row);
  branch.ids.resize(last);
}

}  // namespace

int64_t Example::num_tokens() const {
  auto count = static_cast<int64_t>(prompt.size());
  for (const Branch& branch : branches) count += static_cast<int64_t>(branch.ids.size());
  return count;
}

int64_t Example::length() const {
  size_t longest = 0;
  for (const Branch& branch : branches) longest = std::max(longest, branch.ids.size());
  return static_cast<int64_t>(prompt.size() + longest);
}

ExampleWriter::ExampleWriter(const text::PromptFormat& format, const text::Tokenizer& tokenizer,
                             ExampleOptions options)
    : format_(&format),
      tokenizer_(&tokenizer),
      options_(std::move(options)),
      scale_(format.options().scale) {
  for (int answer = 0; answer <= std::min(9, text::max_answer(scale_)); ++answer) {
    const std::string written = text::answer_text(scale_, answer);
    const auto id = tokenizer.token_for(written);
    if (!id)
      base::fail(base::ErrorKind::kInvalidInput, "train", "the tokenizer has no token for \"",
                 written, "\"; expected one for each answer");
    digits_.push_back(*id);
  }
  answer_close_ = format.answer_close();
  if (!format.stop_ids().empty()) answer_close_.push_back(format.stop_ids().front());
}

text::Ids ExampleWriter::spell(int score) const {
  if (score == 10) return {digits_[1], digits_[0]};
  return {digits_[score]};
}

// The integer after branch.ids, by the teacher's distribution where it is learned.
void ExampleWriter::add_integer(Branch& branch, const data::TrainingPair& pair,
                                bool thinking) const {
  branch.thinking = thinking;
  branch.integer = static_cast<int32_t>(branch.ids.size());
  if (!options_.soft || !pair.distribution) {
    learn(branch, spell(pair.score));
    if (!thinking) learn(branch, {answer_close_.front()});
    return;
  }
  ++branch.num_learned;
  const auto& q = *pair.distribution;
  const auto row = static_cast<int32_t>(branch.ids.size());
  for (size_t d = 0; d < digits_.size(); ++d) {
    const double mass = d == 1 ? q[1] + q[10] : q[d];
    if (mass > 0) branch.terms.push_back({row, digits_[d], static_cast<float>(mass)});
  }
  if (thinking) {  // what follows depends on the integer there
    append(branch.ids, spell(pair.score));
    if (pair.score == 10) {
      branch.terms.push_back({row + 1, digits_[0]});
      ++branch.num_learned;
    }
    return;
  }
  if (scale_ != text::Scale::kZeroToTen) return;  // no answer has a second token
  branch.ids.push_back(digits_[1]);
  if (q[10] > 0) branch.terms.push_back({row + 1, digits_[0], static_cast<float>(q[10])});
  if (q[1] > 0) branch.terms.push_back({row + 1, digits_[0], static_cast<float>(q[1]), true});
}

Example ExampleWriter::write(const data::TrainingPair& pair) const {
  Example example;
  example.qid = pair.qid;
  example.prompt =
      format_
          ->render(pair.instruction.value_or(options_.default_instruction), pair.query, pair.text)
          .ids;
  const bool think = pair.thought.has_value() && options_.modes != Modes::kDirect;
  if (options_.modes != Modes::kThink || !think) {
    Branch direct{format_->direct_close(), {}, 0};
    add_integer(direct, pair, false);
    drop_tail(direct);
    example.branches.push_back(std::move(direct));
  }
  if (think) {
    Branch thinking{format_->think_open(), {}, 0};
    learn(thinking, tokenizer_->encode(*pair.thought));
    learn(thinking, format_->think_close());
    add_integer(thinking, pair, true);
    learn(thinking, answer_close_);
    drop_tail(thinking);
    example.branches.push_back(std::move(thinking));
  }
  example.score = pair.score;
  if (pair.distribution) {
    example.score = 0;
    for (size_t k = 0; k < pair.distribution->size(); ++k)
      example.score += static_cast<double>(k) * (*pair.distribution)[k];
  }
  if (options_.rank) add_rank_terms(example);
  return example;
}

// A soft direct branch may read the same rows already; else there is one more branch.
void ExampleWriter::add_rank_terms(Example& example) const {
  Branch rank{format_->direct_close(), {}, 0};
  const auto row = static_cast<int32_t>(rank.ids.size());
  const int32_t num_rows = scale_ == text::Scale::kZeroToTen ? 2 : 1;
  if (num_rows > 1) rank.ids.push_back(digits_[1]);
  Branch& last = example.branches.size() == 1 && example.branches.front().ids == rank.ids
                     ? example.branches.front()
                     : example.branches.emplace_back(std::move(rank));
  for (int32_t i = 0; i < num_rows; ++i) last.terms.push_back({row + i, digits_[0], 0});
  int32_t count = 0;
  for (const Branch& branch : example.branches) count += static_cast<int32_t>(branch.terms.size());
  example.rank_term = count - num_rows;
}

bool ExampleWriter::reads_back(const Example& example) const {
  const auto& stop_ids = format_->stop_ids();
  for (const Branch& branch : example.branches) {
    const auto begin = std::ssize(format_->think_open());
    if (!branch.thinking) continue;
    // As the engine does: every token of the model's own is shown to the watcher.
    const std::span<const int32_t> written = std::span(branch.ids).subspan(begin);
    const auto integer = branch.integer - begin;
    rank::AnswerWatcher watcher(*tokenizer_, scale_);
    for (int64_t i = 0; i <= integer; ++i) {
      if (std::find(stop_ids.begin(), stop_ids.end(), written[i]) != stop_ids.end()) return false;
      const engine::Verdict verdict = watcher(written.first(i + 1));
      if (verdict.stop != (i == integer)) return false;
      if (verdict.stop && (verdict.force || verdict.keep != integer)) return false;
    }
  }
  return true;
}

}  // namespace erank::train
