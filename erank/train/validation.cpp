#include "erank/train/validation.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <exception>
#include <numeric>

#include "erank/base/error.h"
#include "erank/engine/engine.h"
#include "erank/eval/measures.h"
#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"

namespace erank::train {

// The parameters as serving holds them, and the engine on them.
struct RankingValidation::Serving {
  std::unique_ptr<model::Network> network;
  std::unique_ptr<engine::Engine> engine;

  void load(const model::Parameters& parameters) {
    const model::ParametersSource source(parameters);
    if (engine) return engine->weights_changed(source);
    network = model::make_network(source, {.precision = model::precision_of(parameters.dtype()),
                                           .cuda = parameters.device().is_cuda(),
                                           .threads = at::get_num_threads()});
    engine = std::make_unique<engine::Engine>(*network, engine::EngineOptions{});
  }
};

RankingValidation::RankingValidation(std::vector<List> lists, data::Qrels qrels,
                                     rank::ScoreReader reader, text::Ids answer_prefix)
    : qrels_(std::move(qrels)),
      reader_(std::move(reader)),
      answer_prefix_(std::move(answer_prefix)),
      serving_(std::make_unique<Serving>()) {
  for (List& list : lists)
    if (qrels_.grades.contains(list.qid) && !list.prompts.empty())
      lists_.push_back(std::move(list));
  if (lists_.empty())
    base::fail(base::ErrorKind::kInvalidInput, "--validation",
               "no query of the candidates has a judgement; do their ids agree with the qrels'?");
}

RankingValidation::~RankingValidation() = default;

std::vector<double> RankingValidation::scores(const List& list,
                                              const std::function<void()>& on_pair) {
  std::vector<double> scores(list.prompts.size());
  std::exception_ptr fault;
  for (size_t i = 0; i < list.prompts.size(); ++i)
    serving_->engine->submit(
        {.prompt = list.prompts[i], .answer_prefix = answer_prefix_, .choices = reader_.choices()},
        [&, i](const engine::Completion& completion) {
          if (completion.fault)
            fault = completion.fault;
          else
            scores[i] = reader_.read(completion).expected();
          on_pair();
        });
  serving_->engine->run();
  if (fault) std::rethrow_exception(fault);
  return scores;
}

double RankingValidation::measure(const model::Parameters& parameters,
                                  base::ProgressSink* progress) {
  serving_->load(parameters);
  data::Run run;
  int64_t done = 0, total = 0;
  for (const List& list : lists_) total += static_cast<int64_t>(list.prompts.size());
  for (const List& list : lists_) {
    const std::vector<double> scores = this->scores(list, [&] {
      ++done;
      if (progress) progress->update({"validate", done, total, "pairs", ""});
    });
    // Ties keep the first stage's order; with places as scores the measure has none to break.
    std::vector<size_t> order(scores.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    run.qids.push_back(list.qid);
    auto& hits = run.hits[list.qid];
    for (const size_t at : order)
      hits.push_back({list.docids[at], -static_cast<double>(hits.size())});
  }
  const auto evaluation = eval::evaluate(qrels_, run, eval::parse_measures({"nDCG@10"}));
  return evaluation.summary.front();
}

}  // namespace erank::train
