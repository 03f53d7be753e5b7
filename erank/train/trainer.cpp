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

// Of the time that a run's steps will take, to measure the GEMM peak for.
constexpr double kPeakShare = 0.02;

constexpr const char* kWeights = "weights.safetensors";
constexpr const char* kState = "optimizer.safetensors";
constexpr const char* kPrepared = "prepared.safetensors";
constexpr const char* kTrainer = "trainer.json";
constexpr const char* kStepPrefix = "step-";
// What a checkpoint's folder and best/ hold, first what makes a folder a checkpoint.
constexpr const char* kOwnFiles[] = {
    kTrainer, kState, kPrepared, kWeights, "adapter_model.safetensors", "adapter_config.json"};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::string step_name(int64_t step) {
  std::string digits = std::to_string(step);
  return kStepPrefix + std::string(digits.size() < 6 ? 6 - digits.size() : 0, '0') + digits;
}

std::string rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", value);
  return text;
}

// The numbers of the folders that are named as checkpoints, ascending. A run that was killed may
// have left step-N.unfinished, which is none.
std::vector<int64_t> step_folders(const std::string& folder) {
  std::vector<int64_t> steps;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder + "/checkpoints", none)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(kStepPrefix)) continue;
    int64_t step = 0;
    std::from_chars(name.data() + std::strlen(kStepPrefix), name.data() + name.size(), step);
    if (step_name(step) == name) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

bool is_checkpoint(const std::string& folder, int64_t step) {
  return base::file_exists(folder + "/checkpoints/" + step_name(step) + "/" + kTrainer);
}

std::vector<int64_t> checkpoint_steps(const std::string& folder) {
  auto steps = step_folders(folder);
  std::erase_if(steps, [&](int64_t step) { return !is_checkpoint(folder, step); });
  return steps;
}

// trainer.json of a checkpoint.
struct Description {
  int64_t step = 0, num_steps = 0, best_step = 0, validated_step = 0;
  std::optional<double> best_metric, last_metric;
  bool prepared = false;
  base::Json identity;

  static Description read(const std::string& where) {
    const base::Json json = base::parse_json(base::read_file(where, size_t{1} << 20), where);
    const auto corrupt = [&](const char* what) {
      base::fail(ErrorKind::kCorrupt, "--resume", where, ": ", what);
    };
    if (!json.is_object() || !json.contains("identity") || !json["identity"].is_object())
      corrupt("not a checkpoint's description");
    const auto integer = [&](const char* key) {
      return base::json_require<int64_t>(json, key, where);
    };
    const auto metric = [&](const char* key) -> std::optional<double> {
      if (!json.contains(key) || json[key].is_null()) return std::nullopt;
      return base::json_require<double>(json, key, where);
    };
    Description d{integer("step"),
                  integer("num_steps"),
                  integer("best_step"),
                  integer("validated_step"),
                  metric("best_metric"),
                  metric("last_metric"),
                  base::json_value<bool>(json, "prepared", false, where),
                  json["identity"]};
    if (fs::path(where).parent_path().filename() != step_name(d.step) || d.step > d.num_steps ||
        d.best_step < 0 || d.best_step > d.step || d.validated_step > d.step)
      corrupt("its steps cannot be");
    return d;
  }
  void write(const std::string& path) const {
    base::Json json = {{"step", step},         {"num_steps", num_steps},
                       {"identity", identity}, {"best_step", best_step},
                       {"prepared", prepared}, {"validated_step", validated_step}};
    json["best_metric"] = best_metric ? base::Json(*best_metric) : base::Json();
    json["last_metric"] = last_metric ? base::Json(*last_metric) : base::Json();
    base::write_file_atomic(path, json.dump(2) + "\n");
  }
};

// Throws Error{kInvalidInput} naming what of a run is another.
void check_identity(const Description& before, base::Json now, const std::string& path) {
  base::Json was_all = before.identity;
  was_all["steps"] = before.num_steps;
  const auto compare = [&](const base::Json& keys) {
    for (const auto& entry : keys.items()) {
      const std::string& key = entry.key();
      const base::Json was = was_all.value(key, base::Json()), is = now.value(key, base::Json());
      if (was != is)
        base::fail(ErrorKind::kInvalidInput, "--resume", path, " was trained with another ", key,
                   " (", base::dump_json(was), ", now ", base::dump_json(is),
                   "); give the options of before, or --overwrite");
    }
  };
  compare(now);
  compare(was_all);
}

// The first two, for the progress.
std::string shown(const Figures& figures) {
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(2, figures.size()); ++i)
    text += base::str(", ", figures[i].first, " ", rounded(figures[i].second));
  return text;
}

// A run that was killed, or found the disk full, may have written a part of its last line.
void end_with_whole_line(const std::string& path) {
  if (!base::file_exists(path)) return;
  const std::string text = base::read_file(path);
  const size_t whole = text.rfind('\n') + 1;  // 0 where there is none
  if (whole < text.size()) fs::resize_file(path, whole);
}

void add(base::OrderedJson& line, const Figures& figures) {
  for (const auto& [name, value] : figures) line[name] = value;
}

void sync_folder(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

// The parameters to train, with their adapter active.
std::vector<model::NamedTensor> choose(model::Parameters& parameters, const TrainOptions& options) {
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

double measure_peak(at::ScalarType dtype, bool cuda, Communicator& ranks, double max_seconds) {
  double peak = 0;
  if (ranks.rank() == 0)
    peak = model::gemm_peak({.precision = model::precision_of(dtype),
                             .gpu = cuda ? std::optional(0) : std::nullopt,
                             .threads = at::get_num_threads()},
                            max_seconds)
               .flops_per_s;
  all_sum(ranks, {&peak});
  return peak * ranks.size();
}

void remove_run(const std::string& folder) {
  std::error_code none;
  std::vector<std::string> folders = {folder + "/best"};
  for (const auto& entry : fs::directory_iterator(folder + "/checkpoints", none))
    if (entry.path().filename().string().starts_with(kStepPrefix)) folders.push_back(entry.path());
  for (const auto& path : folders) base::remove_files_of(path, kOwnFiles);
  std::vector<fs::path> files = {folder + "/log.jsonl"};
  for (const auto& entry : fs::directory_iterator(folder, none)) {
    const std::string name = entry.path().filename();
    if (name.starts_with("events.out.tfevents.") && name.ends_with(".erank"))
      files.push_back(entry.path());
  }
  for (const auto& path : files)
    if (base::file_exists(path)) fs::remove(path, none);
}

std::optional<int64_t> newest_checkpoint(const std::string& folder) {
  const auto steps = checkpoint_steps(folder);
  if (steps.empty()) return std::nullopt;
  return steps.back();
}

Trainer::Trainer(model::Parameters& parameters, Objective& objective, const TrainOptions& options,
                 std::string folder, base::Json identity, Communicator& ranks)
    : parameters_(parameters),
      objective_(objective),
      options_(options),
      folder_(std::move(folder)),
      identity_(std::move(identity)),
      ranks_(ranks),
      forward_(parameters),
      optimizer_(choose(parameters, options), options.adamw, ranks) {
  forward_.set_head_fp32(options.head_fp32);
  // Forward 2 FLOPs a weight, backward 2 for the inputs' gradients, and 2 for the weights' own.
  double frozen = 0, adapters = 0;
  for (const auto& linear : parameters_.linears()) {
    if (linear.name == "lm_head") continue;  // only for asked rows
    frozen += static_cast<double>(linear.linear->weight.numel());
    if (linear.linear->lora)
      adapters +=
          static_cast<double>(linear.linear->lora->a.numel() + linear.linear->lora->b.numel());
  }
  const double per_weight = options_.lora ? 4 : 6;
  flops_per_token_ = frozen * per_weight + adapters * 6;
  flops_per_row_ = static_cast<double>(parameters_.lm_head().weight.numel()) * per_weight;
}

std::vector<std::string> Trainer::resume() {
  auto steps = step_folders(folder_);
  for (; !steps.empty(); steps.pop_back()) {
    const std::string path = folder_ + "/checkpoints/" + step_name(steps.back());
    if (!is_checkpoint(folder_, steps.back())) {
      skipped_.push_back(path + " has no " + kTrainer);
      continue;
    }
    try {
      load_checkpoint(path);
      break;
    } catch (const base::Error& e) {
      if (e.kind() != ErrorKind::kCorrupt) throw;
      const bool another = std::any_of(steps.begin(), steps.end() - 1,
                                       [&](int64_t step) { return is_checkpoint(folder_, step); });
      if (!another)
        base::fail(ErrorKind::kCorrupt, "--resume", "no checkpoint in ", folder_,
                   " is whole; --overwrite starts anew. ", e.what());
      skipped_.emplace_back(e.what());
    }
  }
  for (const double step : gather(ranks_, static_cast<double>(step_)))
    if (step != static_cast<double>(step_))
      base::fail(ErrorKind::kInvalidInput, "--resume", folder_, ": one rank goes on after step ",
                 step_, ", another after ", step, "; expected a folder that all of them share");
  return skipped_;
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

void Trainer::describe(const std::string& folder) const {
  Description{step_,        objective_.num_steps(), best_step_,      validated_step_,
              best_metric_, last_metric_,           saved_prepared_, identity_}
      .write(folder + "/" + kTrainer);
}

// Everything goes into a folder of another name, which is synced and renamed.
void Trainer::save_checkpoint() {
  const std::string all = folder_ + "/checkpoints", done = all + "/" + step_name(step_),
                    unfinished = done + ".unfinished";
  if (saved_step_ == step_) {  // but its validation may have come after it
    if (saved_validation_ == validated_step_) return;
    saved_validation_ = validated_step_;
    if (writes()) describe(done);
    return;
  }
  check_weights();
  saved_step_ = step_, saved_validation_ = validated_step_;
  if (!writes()) return optimizer_.save("");
  base::remove_files_of(unfinished, kOwnFiles);
  save_weights_to(unfinished);
  optimizer_.save(unfinished + "/" + kState);
  saved_prepared_ = objective_.save(unfinished + "/" + kPrepared, step_);
  describe(unfinished);
  sync_folder(unfinished);
  base::remove_files_of(done, kOwnFiles);
  std::error_code error;
  fs::rename(unfinished, done, error);
  if (error)
    base::fail(ErrorKind::kInvalidInput, "train", done,
               ": cannot become a checkpoint: ", error.message(), "; move away what else is there");
  sync_folder(all);
  auto steps = checkpoint_steps(folder_);
  const auto remove = [&](std::vector<int64_t>::iterator step) {
    base::remove_files_of(all + "/" + step_name(*step), kOwnFiles);
    steps.erase(step);
  };
  while (steps.back() > step_) remove(steps.end() - 1);  // damaged ones that resume() skipped
  while (static_cast<int64_t>(steps.size()) > std::max<int64_t>(1, options_.keep_checkpoints))
    remove(steps.begin());
}

// Throws Error{kCorrupt} for whatever is damaged.
void Trainer::load_checkpoint(const std::string& path) {
  const auto whole = [](const auto& read) {
    try {
      return read();
    } catch (const base::Error& e) {
      throw base::Error(ErrorKind::kCorrupt, e.what());
    }
  };
  const Description d = whole([&] { return Description::read(path + "/" + kTrainer); });
  base::Json now = identity_;
  now["steps"] = objective_.num_steps();
  check_identity(d, std::move(now), path);
  whole([&] {
    load_weights_from(path);
    optimizer_.load(path + "/" + kState, d.step);
    if (d.prepared) objective_.load(path + "/" + kPrepared);
  });
  best_metric_ = d.best_metric, last_metric_ = d.last_metric;
  step_ = d.step, best_step_ = d.best_step, validated_step_ = d.validated_step;
  saved_step_ = step_, saved_validation_ = validated_step_, saved_prepared_ = d.prepared;
}

void Trainer::log(base::OrderedJson line) {
  if (!writes()) return;
  std::ofstream file(folder_ + "/log.jsonl", std::ios::app);
  file << line.dump() << "\n";
  file.flush();
  if (!file) base::fail(ErrorKind::kExhausted, "train", folder_, "/log.jsonl: cannot write to it");
  std::vector<EventFile::Figure> figures;
  for (const auto& [key, value] : line.items())
    if (value.is_number() && key != "step") figures.push_back({key, value.get<double>()});
  if (!figures.empty()) events_->add(line["step"].get<int64_t>(), wall_time(), figures);
}

bool Trainer::validation_due() const {
  if (validated_step_ == step_) return false;
  if (step_ == 0) return options_.validate_start;
  return step_ == objective_.num_steps() ||
         (options_.validate_steps > 0 && step_ % options_.validate_steps == 0);
}

// False: stopped.
bool Trainer::validate(const WorkControl& control) {
  check_weights();
  const auto start = Clock::now();
  const std::optional<Figures> measured = [&] {
    const at::NoGradGuard no_grad;
    forward_.set_training(false);
    return objective_.validate(model(), control);
  }();
  if (!measured) return false;
  const Figures& figures = *measured;
  validated_step_ = step_;
  if (figures.empty()) return true;
  last_metric_ = figures.front().second;
  const bool better = !best_metric_ || *last_metric_ > *best_metric_;
  if (better) {
    best_metric_ = last_metric_, best_step_ = step_;
    if (writes()) save_weights_to(folder_ + "/best");  // each file is replaced as a whole
  }
  base::OrderedJson line = {{"step", step_}, {"validation", *last_metric_}};
  add(line, {figures.begin() + 1, figures.end()});
  line["best"] = better;
  line["seconds"] = seconds_since(start);
  log(line);
  return true;
}

// The weights of step_ may be what is wrong, so a checkpoint of them is not a good one.
void Trainer::halt(int64_t step, const std::string& reason) {
  log({{"step", step}, {"halted", reason}});
  std::string good = "there is no checkpoint before it";
  for (const int64_t saved : checkpoint_steps(folder_))
    if (saved < step_)
      good = "the last good checkpoint is " + folder_ + "/checkpoints/" + step_name(saved);
  base::fail(ErrorKind::kInvalidInput, "train", "step ", step, ": ", reason, "; ", good);
}

void Trainer::check_weights() {
  if (!optimizer_.is_finite())
    halt(step_, "the weights are not finite after it; a smaller --learning-rate may help");
}

bool Trainer::prepare(const WorkControl& control) {
  const auto start = Clock::now();
  const Preparation prepared = [&] {
    const at::NoGradGuard no_grad;
    forward_.set_training(false);
    return objective_.prepare(model(), step_, control);
  }();
  if (!prepared.complete) return false;
  if (!prepared.figures.empty()) {
    base::OrderedJson line = {{"step", step_ + 1}, {"prepared", true}};
    add(line, prepared.figures);
    line["seconds"] = seconds_since(start);
    log(line);
    prepared_ = shown(prepared.figures);
  }
  if (!prepared.halt.empty()) halt(step_ + 1, prepared.halt);
  return true;
}

void Trainer::step(base::ProgressSink* progress) {
  const auto start = Clock::now();
  const int64_t total = objective_.num_steps();
  forward_.set_training(true);
  at::manual_seed(base::derived_seed(options_.seed, static_cast<uint64_t>(step_)) +
                  static_cast<uint64_t>(ranks_.rank()));  // dropout
  const double rate = learning_rate(options_.schedule, step_, total);
  const StepStats stats = objective_.accumulate(
      model(), step_, [&](const at::Tensor& loss) { optimizer_.backward(loss); });
  const auto not_finite = [&](const char* what) {
    halt(step_ + 1, base::str(what,
                              " not finite; a smaller --learning-rate or --precision fp32 "
                              "may help"));
  };
  if (!stats.halt.empty()) halt(step_ + 1, stats.halt);
  if (!std::isfinite(stats.loss)) not_finite("the loss is");
  const double norm = optimizer_.step(rate);
  if (!std::isfinite(norm)) not_finite("the gradients are");
  ++step_;
  const double seconds = seconds_since(start);
  if (gemm_peak_ <= 0)
    gemm_peak_ = measure_peak(parameters_.dtype(), parameters_.device().is_cuda(), ranks_,
                              kPeakShare * seconds * static_cast<double>(total - step_ + 1));
  const double flops = static_cast<double>(stats.num_tokens) * flops_per_token_ +
                       static_cast<double>(stats.num_rows) * flops_per_row_;
  tokens_ += stats.num_tokens, seconds_ += seconds, flops_ += flops;
  const double speed = static_cast<double>(stats.num_tokens) / seconds;
  base::OrderedJson line = {{"step", step_},
                            {"loss", stats.loss},
                            {"learning_rate", rate},
                            {"gradient_norm", norm},
                            {"examples", stats.num_examples},
                            {"learned_tokens", stats.num_learned},
                            {"tokens", stats.num_tokens},
                            {"seconds", seconds},
                            {"tokens_per_s", speed},
                            {"share_of_gemm_peak", flops / seconds / gemm_peak_}};
  add(line, stats.figures);
  log(line);
  if (!progress) return;
  const std::string measured =
      base::str("loss ", rounded(stats.loss), prepared_, shown(stats.figures));
  char detail[96];
  const double mean = static_cast<double>(tokens_) / seconds_;
  std::snprintf(detail, sizeof detail, ", rate %.2e, %.0f tokens/s, %.0f %% of GEMM peak", rate,
                mean, 100 * flops_ / seconds_ / gemm_peak_);
  progress->update({"train", step_, total, "steps", measured + detail});
}

TrainResult Trainer::run(base::ProgressSink* progress, const std::function<bool()>& stop) {
  if (writes()) {
    fs::create_directories(folder_ + "/checkpoints");
    end_with_whole_line(folder_ + "/log.jsonl");
  }
  gemm_peak_ = options_.gemm_peak;
  const int64_t total = objective_.num_steps(), first = step_;
  if (writes()) events_.emplace(folder_, step_ + 1, wall_time());
  if (step_ > 0 || !skipped_.empty()) {
    base::OrderedJson line = {{"step", step_}, {"resumed", true}};
    if (!skipped_.empty()) line["skipped"] = skipped_;
    log(line);
  }
  const WorkControl control{progress, stop};
  bool stopped = false;
  while (true) {
    const bool last = step_ == total;
    const bool due =
        step_ > first &&
        (last || (options_.checkpoint_steps > 0 && step_ % options_.checkpoint_steps == 0));
    if (due) save_checkpoint();  // before a validation, which may take long
    stopped = validation_due() && !validate(control);
    if (stopped) break;
    if (due || saved_step_ == step_) save_checkpoint();  // with what was validated
    if (last) break;
    stopped = any(ranks_, stop()) ||
              (options_.stop_after > 0 && step_ - first >= options_.stop_after) ||
              !prepare(control);
    if (stopped) break;
    step(progress);
  }
  if (progress) progress->finish();
  if (stopped) save_checkpoint();
  TrainResult result{step_, !stopped, last_metric_, best_metric_, best_step_};
  ranks_.barrier();  // best/ is written
  if (result.finished && best_metric_ && best_step_ != step_) load_weights_from(folder_ + "/best");
  forward_.set_training(false);
  return result;
}

}  // namespace erank::train
