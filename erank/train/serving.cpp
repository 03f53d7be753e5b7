#include "erank/train/serving.h"

#include <ATen/Parallel.h>

#include <exception>

#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"

namespace erank::train {

int64_t count_tokens(const std::vector<base::Ids>& prompts) {
  int64_t count = 0;
  for (const auto& prompt : prompts) count += std::ssize(prompt);
  return count;
}

Serving::Serving() = default;
Serving::~Serving() = default;

void Serving::load(const model::Parameters& parameters) {
  const model::ParametersSource source(parameters);
  if (engine_) return engine_->weights_changed(source);
  network_ = model::make_network(source, {.precision = model::precision_of(parameters.dtype()),
                                          .cuda = parameters.device().is_cuda(),
                                          .threads = at::get_num_threads()});
  engine_ = std::make_unique<engine::Engine>(*network_, engine::EngineOptions{});
}

std::vector<text::ScoreDistribution> Serving::direct_answers(const std::vector<base::Ids>& prompts,
                                                             const rank::ScoreReader& reader,
                                                             const base::Ids& answer_prefix,
                                                             const std::function<void()>& on_pair) {
  std::vector<text::ScoreDistribution> answers(prompts.size());
  std::exception_ptr fault;
  for (size_t i = 0; i < prompts.size(); ++i)
    engine_->submit(
        {.prompt = prompts[i], .answer_prefix = answer_prefix, .choices = reader.choices()},
        [&, i](const engine::Completion& completion) {
          if (completion.fault)
            fault = completion.fault;
          else
            answers[i] = reader.read(completion);
          on_pair();
        });
  engine_->run();
  if (fault) std::rethrow_exception(fault);
  return answers;
}

}  // namespace erank::train
