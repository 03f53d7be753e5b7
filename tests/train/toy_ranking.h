// A ranking that a random tiny model must learn: relevant is the document that holds a marker.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/random.h"
#include "erank/model/weights.h"
#include "erank/rank/checkpoint.h"
#include "erank/train/grpo.h"
#include "erank/train/loss.h"
#include "erank/train/optimizer.h"
#include "erank/train/packing.h"
#include "tests/rank/tiny_checkpoint.h"
#include "tests/text/yes_no_tokenizer.h"

namespace erank::train {

struct ToyRanking {
  static constexpr int kQueries = 48, kDocuments = 6, kHeldOut = 24;

  explicit ToyRanking(std::string folder, text::Scale scale = text::Scale::kZeroToTen)
      : model(std::move(folder)), tokenizer(tokenizer_of(model, scale)) {
    text::PromptOptions options = format.options();
    options.scale = scale;
    format = text::PromptFormat(tokenizer, options);
  }

  // Six letters a document; where it is relevant, one in each query and some others, up to three of
  // them are a '#'.
  static std::vector<RankedQuery> queries(uint64_t seed, int count, int documents = kDocuments) {
    base::Random random(seed);
    std::vector<RankedQuery> all;
    for (int q = 0; q < count; ++q) {
      RankedQuery& query = all.emplace_back();
      query.qid = base::str("q", seed, "-", q);
      const auto letter = static_cast<int32_t>('A' + random.below(26));
      const uint64_t relevant = random.below(static_cast<uint64_t>(documents));
      for (int d = 0; d < documents; ++d) {
        text::Ids prompt = {letter};
        for (int i = 0; i < 6; ++i) prompt.push_back(static_cast<int32_t>('a' + random.below(26)));
        const bool is_relevant = static_cast<uint64_t>(d) == relevant || random.below(8) == 0;
        if (is_relevant)
          for (int i = 0; i < 3; ++i) prompt[1 + random.below(6)] = '#';
        query.docids.push_back(base::str("d", d));
        query.grades.push_back(is_relevant);
        query.prompts.push_back(std::move(prompt));
      }
    }
    return all;
  }

  // Measures other queries than those that are learned from.
  std::unique_ptr<RankingValidation> held_out() const {
    std::vector<RankingValidation::List> lists;
    data::Qrels qrels;
    for (RankedQuery& query : queries(99, kHeldOut)) {
      qrels.qids.push_back(query.qid);
      for (size_t d = 0; d < query.docids.size(); ++d)
        qrels.grades[query.qid][query.docids[d]] = query.grades[d];
      lists.push_back({query.qid, query.docids, std::move(query.prompts)});
    }
    return std::make_unique<RankingValidation>(std::move(lists), std::move(qrels), model_format());
  }

  // The checkpoint's, or what warm_up() made of them.
  std::unique_ptr<model::Parameters> parameters() const {
    auto fresh = model::load_parameters(model, at::kFloat);
    if (start_.empty()) return fresh;
    const at::NoGradGuard no_grad;
    const auto to = fresh->named();
    for (size_t i = 0; i < to.size(); ++i) to[i].tensor.copy_(start_[i]);
    return fresh;
  }

  // As fine-tuning would: the model learns how an answer is written, and to give every document
  // k with a probability in proportion to 0.8^k, on the scale 0..10 1 and 10 sharing that of 1.
  void warm_up(int steps) {
    const auto weights = model::load_parameters(model, at::kFloat);
    TreeForward forward(*weights);
    AdamW optimizer(weights->named(), {});
    const rank::ScoreReader reader(tokenizer, format.options().scale);
    const int count = std::min(10, text::max_answer(format.options().scale) + 1);
    Branch branch{format.direct_close(), {}};
    const auto row = static_cast<int32_t>(branch.ids.size());
    double total = 0;
    for (int k = 0; k < count; ++k) total += std::pow(0.8, k);
    for (int k = 0; k < count; ++k)
      branch.terms.push_back(
          {row, reader.choices()[k].front(), static_cast<float>(std::pow(0.8, k) / total)});
    if (count == 10) {
      branch.ids.push_back(reader.choices()[1].front());
      branch.terms.push_back({row + 1, reader.choices()[0].front(), 0.5f});
      branch.terms.push_back({row + 1, reader.choices()[0].front(), 0.5f, true});
    }
    for (int step = 0; step < steps; ++step) {
      std::vector<Example> examples;
      for (const RankedQuery& query : queries(1000 + step, 4))
        for (const text::Ids& prompt : query.prompts) examples.push_back({"", prompt, {branch}});
      std::vector<Group> groups;
      for (const Example& example : examples) groups.push_back({&example});
      for (const MicroBatch& micro : pack(groups, {}))
        optimizer.backward(answer_loss(forward.forward(micro.batch), micro.terms));
      optimizer.step(0.003);
    }
    start_.clear();
    for (const auto& p : weights->named()) start_.push_back(p.tensor.detach().clone());
  }

  ModelFormat model_format() const { return {tokenizer, format}; }

  std::string model;  // a checkpoint's folder
  text::Tokenizer tokenizer;
  text::PromptFormat format{tokenizer, rank::find_checkpoint(model).defaults.prompt};

 private:
  // Which has the scale's words.
  static text::Tokenizer tokenizer_of(const std::string& model, text::Scale scale) {
    if (scale == text::Scale::kYesNo) text::add_yes_no(model);
    return text::Tokenizer::load(model);
  }

  std::vector<at::Tensor> start_;
};

// Of each line of a log that has them: mean score of relevant documents less that of others.
inline std::vector<double> score_gap(const std::string& log) {
  std::istringstream lines(base::read_file(log));
  std::vector<double> gaps;
  for (std::string text; std::getline(lines, text);)
    if (const base::Json line = base::parse_json(text, log); line.contains("score_positive"))
      gaps.push_back(line["score_positive"].get<double>() - line["score_negative"].get<double>());
  return gaps;
}

}  // namespace erank::train
