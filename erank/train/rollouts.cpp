#include "erank/train/rollouts.h"

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <exception>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/data/safetensors.h"
#include "erank/model/tensor_file.h"
#include "erank/text/answer_parser.h"

namespace erank::train {
namespace {

using base::ErrorKind;

text::Ids joined(const text::Ids& a, const text::Ids& b) {
  text::Ids both = a;
  both.insert(both.end(), b.begin(), b.end());
  return both;
}

}  // namespace

RolloutSampler::RolloutSampler(ModelFormat format, const RolloutOptions& options)
    : format_(format), options_(options), reader_(format.tokenizer, format.format.options().scale) {
  const auto modes = static_cast<int>(options.modes.size());
  ERANK_CHECK(options.num_samples > 0 && options.max_think_tokens > 0);
  ERANK_CHECK((modes == 1 || modes == 2) && options.num_samples % modes == 0);
}

int RolloutSampler::score_of(const text::Ids& tokens, rank::Mode mode) const {
  const auto& choices = reader_.choices();
  if (mode == rank::Mode::kDirect) {
    // The longest answer that begins the tokens: a 10 before a 1.
    for (size_t k = choices.size(); k-- > 0;)
      if (tokens.size() >= choices[k].size() &&
          std::equal(choices[k].begin(), choices[k].end(), tokens.begin()))
        return static_cast<int>(k);
    return kUnformatted;
  }
  const auto unknown = [&](int32_t id) { return !format_.tokenizer.has(id); };
  if (std::any_of(tokens.begin(), tokens.end(), unknown)) return kUnformatted;
  const auto answer =
      text::AnswerParser(format_.format.options().scale).parse(format_.tokenizer.decode(tokens));
  return answer ? answer->value : kUnformatted;
}

Rollout RolloutSampler::read(const engine::Completion& completion, rank::Mode mode) const {
  Rollout rollout;
  rollout.tokens = completion.new_tokens;
  if (!rollout.tokens.empty()) rollout.score = score_of(rollout.tokens, mode);
  rollout.overlong = mode == rank::Mode::kThink && rollout.score == kUnformatted &&
                     (completion.finish == engine::Finish::kBudget ||
                      completion.finish == engine::Finish::kContext);
  if (completion.finish == engine::Finish::kStopped) rollout.tokens.push_back(completion.stop_id);
  ERANK_CHECK(completion.log_probs.size() == rollout.tokens.size());
  for (const auto& log_prob : completion.log_probs)
    rollout.log_probs.push_back(static_cast<float>(log_prob.at_one));
  return rollout;
}

std::vector<Rollout> RolloutSampler::sample(Serving& serving, const std::vector<Prompt>& prompts,
                                            const std::function<void()>& on_rollout,
                                            const std::function<bool()>& stop) const {
  // The one token of a direct answer that another one may follow, where there is a 10.
  const int32_t one = reader_.choices()[1].front();
  const auto answer_tokens = static_cast<int>(reader_.choices().back().size());
  const size_t num_modes = options_.modes.size(),
               samples = static_cast<size_t>(options_.num_samples) / num_modes;
  std::vector<Rollout> rollouts(prompts.size() * num_modes * samples);
  std::vector<int64_t> requests;
  std::exception_ptr fault;
  // Of place i there are `samples` rollouts: a prompt's in one mode.
  for (size_t i = 0; i < prompts.size() * num_modes; ++i) {
    const Prompt& prompt = prompts[i / num_modes];
    const rank::Mode mode = options_.modes[i % num_modes];
    engine::Request request;
    request.prompt = joined(*prompt.ids, format_.context_close(mode));
    request.sampling = {.temperature = 1, .seed = prompt.seed};
    if (i % num_modes > 0) request.sampling.seed = base::derived_seed(prompt.seed, i % num_modes);
    request.num_samples = static_cast<int>(samples);
    request.log_probs = true;
    request.max_new_tokens = mode == rank::Mode::kThink ? options_.max_think_tokens : answer_tokens;
    if (mode == rank::Mode::kThink)
      request.stop_ids = format_.format.stop_ids();
    else
      request.watch = [one](int, std::span<const int32_t> tokens) {
        return engine::Verdict{.stop = tokens.front() != one, .force = false};
      };
    requests.push_back(serving.engine().submit(
        std::move(request), [&, i, mode](const engine::Completion& completion) {
          if (completion.fault)
            fault = completion.fault;
          else if (completion.finish != engine::Finish::kCancelled)
            rollouts[i * samples + static_cast<size_t>(completion.sample)] = read(completion, mode);
          on_rollout();
        }));
  }
  if (!serving.run(requests, stop)) return {};
  if (fault) std::rethrow_exception(fault);
  return rollouts;
}

// What a rank does not know is 0 until all are added up; ids below 2^24 are exact in fp32.
void exchange_rollouts(Communicator& ranks, const std::vector<uint8_t>& mine,
                       std::vector<Rollout>& rollouts) {
  if (ranks.size() == 1) return;
  std::vector<double> lengths, scores, overlong;
  for (size_t i = 0; i < rollouts.size(); ++i) {
    lengths.push_back(mine[i] ? static_cast<double>(rollouts[i].tokens.size()) : 0);
    scores.push_back(mine[i] ? rollouts[i].score : 0);
    overlong.push_back(mine[i] ? rollouts[i].overlong : 0);
  }
  for (auto* values : {&lengths, &scores, &overlong}) all_sum(ranks, *values);
  std::vector<float> tokens, log_probs;
  for (size_t i = 0; i < rollouts.size(); ++i) {
    Rollout& rollout = rollouts[i];
    rollout.tokens.resize(static_cast<size_t>(lengths[i]));
    rollout.log_probs.resize(rollout.tokens.size());
    rollout.score = static_cast<int>(scores[i]);
    rollout.overlong = overlong[i] > 0;
    tokens.insert(tokens.end(), rollout.tokens.begin(), rollout.tokens.end());
    log_probs.insert(log_probs.end(), rollout.log_probs.begin(), rollout.log_probs.end());
  }
  all_sum(ranks, tokens);
  all_sum(ranks, log_probs);
  size_t at = 0;
  for (Rollout& rollout : rollouts)
    for (size_t t = 0; t < rollout.tokens.size(); ++t, ++at) {
      rollout.tokens[t] = static_cast<int32_t>(tokens[at]);
      rollout.log_probs[t] = log_probs[at];
    }
}

int64_t RolloutTokens::num_tokens() const {
  int64_t count = 0;
  for (const Rollout& rollout : rollouts) count += std::ssize(rollout.tokens);
  return count;
}

std::vector<model::NamedTensor> RolloutTokens::tensors() const {
  std::vector<float> lengths, scores, overlong, tokens, log_probs;
  for (const Rollout& rollout : rollouts) {
    lengths.push_back(static_cast<float>(rollout.tokens.size()));
    scores.push_back(static_cast<float>(rollout.score));
    overlong.push_back(rollout.overlong ? 1 : 0);
    for (const int32_t id : rollout.tokens) {  // below 2^24: exact
      ERANK_CHECK(id < (1 << 24));
      tokens.push_back(static_cast<float>(id));
    }
    log_probs.insert(log_probs.end(), rollout.log_probs.begin(), rollout.log_probs.end());
  }
  return {{"rollouts.lengths", at::tensor(lengths)},
          {"rollouts.scores", at::tensor(scores)},
          {"rollouts.overlong", at::tensor(overlong)},
          {"rollouts.tokens", at::tensor(tokens)},
          {"rollouts.log_probs", at::tensor(log_probs)},
          {"rollouts.old_log_probs", at::tensor(old_log_probs)},
          {"rollouts.reference_log_probs", at::tensor(reference_log_probs)}};
}

RolloutTokens RolloutTokens::load(const std::string& path, int64_t count, int max_score,
                                  std::vector<model::NamedTensor> others) {
  const auto corrupt = [&](const char* what) {
    base::fail(ErrorKind::kCorrupt, "--resume", path, ": ", what);
  };
  std::vector<std::vector<float>> read;
  const data::SafetensorsFile file = data::SafetensorsFile::open(path);
  for (const auto& named : RolloutTokens().tensors()) {
    at::Tensor tensor;
    for (const auto& info : file.tensors())
      if (info.name == named.name && info.shape.size() == 1) tensor = at::zeros(info.shape);
    if (!tensor.defined()) corrupt("no rollouts");
    others.push_back({named.name, tensor});
  }
  model::load_tensors(path, others);
  for (size_t i = others.size() - 7; i < others.size(); ++i) {
    const float* values = others[i].tensor.const_data_ptr<float>();
    read.emplace_back(values, values + others[i].tensor.numel());
  }
  const auto size = static_cast<size_t>(count);
  RolloutTokens result;
  if (read[0].size() != size || read[1].size() != size || read[2].size() != size)
    corrupt("not as many rollouts as there are");
  size_t at = 0;
  const size_t total = read[3].size();
  for (size_t i = 0; i < size; ++i) {
    const float length = read[0][i], score = read[1][i];
    if (!(length >= 1 && length <= static_cast<float>(total - at)) ||
        !(score >= kUnformatted && score <= static_cast<float>(max_score)) ||
        read[4].size() != total)
      corrupt("its rollouts cannot be");
    Rollout& rollout = result.rollouts.emplace_back();
    rollout.score = static_cast<int>(score);
    rollout.overlong = read[2][i] > 0;
    for (const size_t end = at + static_cast<size_t>(length); at < end; ++at) {
      if (!(read[3][at] >= 0 && read[3][at] < 1 << 24)) corrupt("its rollouts cannot be");
      rollout.tokens.push_back(static_cast<int32_t>(read[3][at]));
      rollout.log_probs.push_back(read[4][at]);
    }
  }
  result.old_log_probs = std::move(read[5]), result.reference_log_probs = std::move(read[6]);
  if (at != total || result.old_log_probs.size() != total ||
      (!result.reference_log_probs.empty() && result.reference_log_probs.size() != total))
    corrupt("its rollouts cannot be");
  return result;
}

}  // namespace erank::train
