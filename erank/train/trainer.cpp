#include "erank/train/trainer.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/model/gemm_peak.h"
#include "erank/model/lora.h"
#include "erank/model/tensor_file.h"

namespace erank::train {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;
using Clock = std::chrono::steady_clock;

constexpr const char* kWeights = "weights.safetensors";
constexpr const char* kState = "optimizer.safetensors";
constexpr const char* kTrainer = "trainer.json";
constexpr const char* kStepPrefix = "step-";
// What a checkpoint's folder and best/ hold, first what makes a folder a checkpoint.
constexpr const char* kOwnFiles[] = {kTrainer, kState, kWeights, "adapter_model.safetensors",
                                     "adapter_config.json"};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::string step_name(int64_t step) {
  std::string digits = std::to_string(step);
  return kStepPrefix + std::string(digits.size() < 6 ? 6 - digits.size() : 0, '0') + digits;
}

std::vector<int64_t> checkpoint_steps(const std::string& folder) {
  std::vector<int64_t> steps;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder + "/checkpoints", none)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(kStepPrefix) || !base::file_exists(entry.path() / kTrainer)) continue;
    int64_t step = 0;
    std::from_chars(name.data() + std::strlen(kStepPrefix), name.data() + name.size(), step);
    // A run that was killed may have left step-N.unfinished.
    if (step_name(step) == name) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

std::vector<model::NamedTensor> prepare(model::Parameters& parameters,
                                        const TrainOptions& options) {
  const model::Adapter* adapter = parameters.adapter(kTrainedAdapter);
  if (!options.lora) {
    ERANK_CHECK(!adapter, "an adapter to train and every parameter to train");
    parameters.activate("");
    return parameters.named();
  }
  if (adapter)
    parameters.activate(kTrainedAdapter);
  else
    parameters.add_adapter(kTrainedAdapter, model::make_adapter(parameters.config(), *options.lora,
                                                                options.seed, parameters.device()));
  return parameters.adapter(kTrainedAdapter)->named();
}

}  // namespace

void remove_run(const std::string& folder) {
  std::error_code none;
  std::vector<std::string> folders = {folder + "/best"};
  for (const auto& entry : fs::directory_iterator(folder + "/checkpoints", none))
    if (entry.path().filename().string().starts_with(kStepPrefix)) folders.push_back(entry.path());
  for (const auto& path : folders) base::remove_files_of(path, kOwnFiles);
  if (base::file_exists(folder + "/log.jsonl")) fs::remove(folder + "/log.jsonl", none);
}

std::optional<int64_t> newest_checkpoint(const std::string& folder) {
  const auto steps = checkpoint_steps(folder);
  if (steps.empty()) return std::nullopt;
  return steps.back();
}

Trainer::Trainer(model::Parameters& parameters, Objective& objective, const TrainOptions& options,
                 std::string folder, base::Json identity)
    : parameters_(parameters),
      objective_(objective),
      options_(options),
      folder_(std::move(folder)),
      identity_(std::move(identity)),
      forward_(parameters),
      optimizer_(prepare(parameters, options), options.adamw) {
  // Forward 2 FLOPs a weight, backward 2 for the inputs' gradients, and 2 for the weights' own.
  double frozen = 0, adapters = 0;
  for (const auto& linear : parameters_.linears()) {
    if (linear.name == "lm_head") continue;  // only for learned rows
    frozen += static_cast<double>(linear.linear->weight.numel());
    if (linear.linear->lora)
      adapters +=
          static_cast<double>(linear.linear->lora->a.numel() + linear.linear->lora->b.numel());
  }
  flops_per_token_ = frozen * (options_.lora ? 4 : 6) + adapters * 6;
}

void Trainer::resume() {
  const auto newest = newest_checkpoint(folder_);
  if (newest) load_checkpoint(folder_ + "/checkpoints/" + step_name(*newest));
}

std::vector<model::NamedTensor> Trainer::trained() const {
  return options_.lora ? parameters_.adapter(kTrainedAdapter)->named() : parameters_.named();
}

void Trainer::save_weights_to(const std::string& folder) const {
  fs::create_directories(folder);
  if (options_.lora)
    model::save_adapter(*parameters_.adapter(kTrainedAdapter), folder, options_.base_name,
                        at::kFloat);
  else
    model::save_tensors(folder + "/" + kWeights, parameters_.named(), parameters_.dtype());
}

void Trainer::load_weights_from(const std::string& folder) {
  const at::NoGradGuard no_grad;
  model::load_tensors(
      folder + "/" + (options_.lora ? std::string("adapter_model.safetensors") : kWeights),
      trained());
}

// Everything goes into a folder of another name, which is synced and renamed.
void Trainer::save_checkpoint() {
  const std::string all = folder_ + "/checkpoints", done = all + "/" + step_name(step_),
                    unfinished = done + ".unfinished";
  if (base::file_exists(done + "/" + kTrainer)) return;
  base::remove_files_of(unfinished, kOwnFiles);
  save_weights_to(unfinished);
  model::save_tensors(unfinished + "/" + kState, optimizer_.state(), at::kFloat);
  base::Json json = {{"step", step_},
                     {"num_steps", objective_.num_steps()},
                     {"identity", identity_},
                     {"best_step", best_step_},
                     {"validated_step", validated_step_}};
  json["best_metric"] = best_metric_ ? base::Json(*best_metric_) : base::Json();
  json["last_metric"] = last_metric_ ? base::Json(*last_metric_) : base::Json();
  base::write_file_atomic(unfinished + "/" + kTrainer, json.dump(2) + "\n");
  sync_folder(unfinished);
  base::remove_files_of(done, kOwnFiles);
  std::error_code error;
  fs::rename(unfinished, done, error);
  if (error)
    base::fail(ErrorKind::kInvalidInput, "train", done,
               ": cannot become a checkpoint: ", error.message(), "; move away what else is there");
  sync_folder(all);
  auto steps = checkpoint_steps(folder_);
  while (static_cast<int64_t>(steps.size()) > std::max<int64_t>(1, options_.keep_checkpoints)) {
    base::remove_files_of(all + "/" + step_name(steps.front()), kOwnFiles);
    steps.erase(steps.begin());
  }
}

void Trainer::load_checkpoint(const std::string& path) {
  const std::string where = path + "/" + kTrainer;
  const base::Json json = base::parse_json(base::read_file(where, size_t{1} << 20), where);
  const auto corrupt = [&](const char* what) {
    base::fail(ErrorKind::kCorrupt, "--resume", where, ": ", what,
               "; remove this checkpoint to go on from the one before");
  };
  if (!json.is_object() || !json.contains("identity") || !json["identity"].is_object())
    corrupt("not a checkpoint's description");
  base::Json before = json["identity"], now = identity_;
  before["steps"] = base::json_require<int64_t>(json, "num_steps", where);
  now["steps"] = objective_.num_steps();
  const auto compare = [&](const base::Json& keys) {
    for (const auto& entry : keys.items()) {
      const std::string& key = entry.key();
      const base::Json was = before.value(key, base::Json()), is = now.value(key, base::Json());
      if (was != is)
        base::fail(ErrorKind::kInvalidInput, "--resume", path, " was trained with another ", key,
                   " (", base::dump_json(was), ", now ", base::dump_json(is),
                   "); give the options of before, or --overwrite");
    }
  };
  compare(now);
  compare(before);
  const auto step = base::json_require<int64_t>(json, "step", where);
  const auto best_step = base::json_require<int64_t>(json, "best_step", where);
  const auto validated_step = base::json_require<int64_t>(json, "validated_step", where);
  if (fs::path(path).filename() != step_name(step) || step > objective_.num_steps() ||
      best_step < 0 || best_step > step || validated_step > step)
    corrupt("its steps cannot be");
  const auto metric = [&](const char* key) -> std::optional<double> {
    if (!json.contains(key) || json[key].is_null()) return std::nullopt;
    return base::json_require<double>(json, key, where);
  };
  best_metric_ = metric("best_metric");
  last_metric_ = metric("last_metric");
  load_weights_from(path);
  model::load_tensors(path + "/" + kState, optimizer_.state());
  step_ = step, best_step_ = best_step, validated_step_ = validated_step;
  optimizer_.restored(step_);
}

void Trainer::log(base::OrderedJson line) {
  std::ofstream file(folder_ + "/log.jsonl", std::ios::app);
  file << line.dump() << "\n";
  file.flush();
  if (!file) base::fail(ErrorKind::kExhausted, "train", folder_, "/log.jsonl: cannot write to it");
}

void Trainer::validate(base::ProgressSink* progress) {
  if (validated_step_ == step_) return;
  const auto start = Clock::now();
  const auto metric = [&] {
    const at::NoGradGuard no_grad;
    forward_.set_training(false);
    return objective_.validate({parameters_, forward_}, progress);
  }();
  validated_step_ = step_;
  if (!metric) return;
  last_metric_ = metric;
  const bool better = !best_metric_ || *metric > *best_metric_;
  if (better) {
    best_metric_ = metric, best_step_ = step_;
    save_weights_to(folder_ + "/best");  // each file is replaced as a whole
  }
  log({{"step", step_},
       {"validation", *metric},
       {"best", better},
       {"seconds", seconds_since(start)}});
}

TrainResult Trainer::run(base::ProgressSink* progress, const std::function<bool()>& stop) {
  fs::create_directories(folder_ + "/checkpoints");
  gemm_peak_ = options_.gemm_peak > 0
                   ? options_.gemm_peak
                   : model::gemm_peak({.precision = model::precision_of(parameters_.dtype()),
                                       .cuda = parameters_.device().is_cuda(),
                                       .threads = at::get_num_threads()})
                         .flops_per_s;
  const int64_t total = objective_.num_steps();
  if (step_ > 0) log({{"step", step_}, {"resumed", true}});
  int64_t tokens = 0, here = 0;
  double busy = 0;
  bool stopped = false;
  while (step_ < total) {
    if (stop() || (options_.stop_after > 0 && here >= options_.stop_after)) {
      stopped = true;
      break;
    }
    const auto start = Clock::now();
    forward_.set_training(true);
    at::manual_seed(base::derived_seed(options_.seed, static_cast<uint64_t>(step_)));  // dropout
    const double rate = learning_rate(options_.schedule, step_, total);
    const StepStats stats = objective_.accumulate(
        {parameters_, forward_}, step_, [&](const at::Tensor& loss) { optimizer_.backward(loss); });
    const double norm = optimizer_.step(rate);
    ++step_, ++here;
    const double seconds = seconds_since(start);
    tokens += stats.num_tokens, busy += seconds;
    const double speed = static_cast<double>(stats.num_tokens) / seconds;
    log({{"step", step_},
         {"loss", stats.loss},
         {"learning_rate", rate},
         {"gradient_norm", norm},
         {"examples", stats.num_examples},
         {"learned_tokens", stats.num_learned},
         {"tokens", stats.num_tokens},
         {"seconds", seconds},
         {"tokens_per_s", speed},
         {"share_of_gemm_peak", speed * flops_per_token_ / gemm_peak_}});
    if (progress) {
      char detail[128];
      const double mean = static_cast<double>(tokens) / busy;
      std::snprintf(detail, sizeof detail,
                    "loss %.4f, rate %.2e, %.0f tokens/s, %.0f %% of GEMM peak", stats.loss, rate,
                    mean, 100 * mean * flops_per_token_ / gemm_peak_);
      progress->update({"train", step_, total, "steps", detail});
    }
    const bool last = step_ == total;
    if (last || (options_.validate_steps > 0 && step_ % options_.validate_steps == 0))
      validate(progress);
    if (last || (options_.checkpoint_steps > 0 && step_ % options_.checkpoint_steps == 0))
      save_checkpoint();
  }
  if (progress) progress->finish();
  if (stopped) save_checkpoint();
  TrainResult result{step_, !stopped, last_metric_, best_metric_, best_step_};
  if (result.finished && best_metric_ && best_step_ != step_) load_weights_from(folder_ + "/best");
  forward_.set_training(false);
  return result;
}

}  // namespace erank::train
