#include "erank/train/serving.h"

#include <ATen/Parallel.h>

#include <exception>
#include <optional>

#include "erank/model/make_network.h"
#include "erank/model/weight_source.h"
#include "erank/rank/answer_watcher.h"

namespace erank::train {

int64_t count_tokens(const std::vector<base::Ids>& prompts) {
  int64_t count = 0;
  for (const auto& prompt : prompts) count += std::ssize(prompt);
  return count;
}

const text::Ids& ModelFormat::context_close(rank::Mode mode) const {
  return mode == rank::Mode::kThink ? format.think_open() : format.direct_close();
}

Serving::Serving() = default;
Serving::~Serving() = default;

void Serving::load(const model::Parameters& parameters) {
  const model::ParametersSource source(parameters);
  if (engine_) return engine_->weights_changed(source);
  const at::Device device = parameters.device();
  const auto gpu = device.is_cuda() ? std::optional<int>(device.index()) : std::nullopt;
  network_ = model::make_network(source, {.precision = model::precision_of(parameters.dtype()),
                                          .gpu = gpu,
                                          .threads = at::get_num_threads()});
  // Of a GPU's memory training needs the rest.
  engine_ = std::make_unique<engine::Engine>(
      *network_, engine::EngineOptions{.kv_cache_bytes = model::kUsualCacheBytes});
}

std::vector<text::ScoreDistribution> Serving::answers(const std::vector<text::Ids>& prompts,
                                                      const ModelFormat& format, rank::Mode mode,
                                                      int max_think_tokens,
                                                      const std::function<void()>& on_pair,
                                                      const std::function<bool()>& stop) {
  const text::Scale scale = format.format.options().scale;
  const rank::ScoreReader reader(format.tokenizer, scale);
  const bool think = mode == rank::Mode::kThink;
  std::vector<text::ScoreDistribution> answers(prompts.size());
  std::exception_ptr fault;
  std::vector<int64_t> requests;
  for (size_t i = 0; i < prompts.size(); ++i) {
    engine::Request request;
    request.prompt = prompts[i];
    request.choices = reader.choices();
    if (think) {
      const text::Ids& open = format.context_close(mode);
      request.prompt.insert(request.prompt.end(), open.begin(), open.end());
      request.answer_prefix = format.format.think_close();
      request.max_new_tokens = max_think_tokens;
      request.stop_ids = format.format.stop_ids();
      request.watch = [watcher = std::make_shared<rank::AnswerWatcher>(format.tokenizer, scale)](
                          int, std::span<const int32_t> ids) { return (*watcher)(ids); };
    } else {
      request.answer_prefix = format.context_close(mode);
    }
    const auto read = [&, i](const engine::Completion& completion) {
      if (completion.fault)
        fault = completion.fault;
      else if (completion.finish != engine::Finish::kCancelled)
        answers[i] = reader.read(completion);
      on_pair();
    };
    requests.push_back(engine_->submit(std::move(request), read));
  }
  if (!run(requests, stop)) return {};
  if (fault) std::rethrow_exception(fault);
  return answers;
}

bool Serving::run(const std::vector<int64_t>& requests, const std::function<bool()>& stop) {
  bool stopped = false;
  while (!(stopped = stop()) && engine_->step()) {
  }
  if (!stopped) return true;
  for (const int64_t request : requests) engine_->cancel(request);
  engine_->run();
  return false;
}

}  // namespace erank::train
