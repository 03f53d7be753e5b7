#include "erank/train/run.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <sstream>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/threads.h"
#include "erank/data/records.h"
#include "erank/model/lora.h"
#include "erank/model/weights.h"
#include "erank/rank/model_files.h"
#include "erank/text/tokenizer_export.h"
#include "erank/train/check_range.h"

namespace erank::train {
namespace {

namespace fs = std::filesystem;
using base::ErrorKind;

// What was asked for with this run's changes.
rank::Checkpoint find_model(const RunOptions& options) {
  rank::Checkpoint checkpoint = rank::find_checkpoint(options.model);
  if (options.model.empty()) checkpoint.adapter.reset();  // the default is the base, anew
  rank::CheckpointDefaults& defaults = checkpoint.defaults;
  if (options.layout) defaults.prompt.layout = *options.layout;
  if (options.scale) defaults.prompt.scale = *options.scale;
  if (!options.instruction.empty()) defaults.instruction = options.instruction;
  if (options.max_query_tokens > 0) defaults.prompt.max_query_tokens = options.max_query_tokens;
  if (options.max_document_tokens > 0)
    defaults.prompt.max_document_tokens = options.max_document_tokens;
  return checkpoint;
}

// What would end in weights that are no use, or not be what was meant.
void check_options(const RunOptions& options) {
  const TrainOptions& train = options.train;
  check_range("--learning-rate", train.schedule.peak, 0, 1);
  check_range("--warmup-ratio", train.schedule.warmup_ratio, 0, 1);
  check_range("--floor-ratio", train.schedule.floor_ratio, 0, 1);
  check_range("--adam-beta1", train.adamw.beta1, 0, 0.999999);
  check_range("--adam-beta2", train.adamw.beta2, 0, 0.999999);
  check_range("--weight-decay", train.adamw.weight_decay, 0, 1);
  check_range("--clip-norm", train.adamw.clip_norm, 0, 1e6);
  constexpr auto kMost = static_cast<double>(int64_t{1} << 40);
  check_range("--validate-steps", static_cast<double>(train.validate_steps), 0, kMost);
  check_range("--checkpoint-steps", static_cast<double>(train.checkpoint_steps), 0, kMost);
  check_range("--keep-checkpoints", static_cast<double>(train.keep_checkpoints), 0, kMost);
  check_range("--stop-after", static_cast<double>(train.stop_after), 0, kMost);
  check_range("--max-query-tokens", options.max_query_tokens, 0, kMost);
  check_range("--max-doc-tokens", options.max_document_tokens, 0, kMost);
  if (!train.lora) return;
  check_range("--lora-alpha", train.lora->alpha, 0, 1e6);
  check_range("--lora-dropout", train.lora->dropout, 0, 0.99);
}

// Leaves this process one GPU of those it may see; nothing has looked at them yet.
void choose_gpu(int local_rank) {
  constexpr const char* kVisible = "CUDA_VISIBLE_DEVICES";
  std::vector<std::string> gpus;
  const char* visible = std::getenv(kVisible);
  std::istringstream list(visible ? visible : "");
  for (std::string gpu; std::getline(list, gpu, ',');) gpus.push_back(gpu);
  if (gpus.size() == 1) return;  // the launcher has chosen
  const auto number = static_cast<size_t>(local_rank);
  if (!gpus.empty() && number >= gpus.size())
    base::fail(ErrorKind::kInvalidInput, "--device", "this machine has ", local_rank + 1,
               " ranks or more and ", gpus.size(), " GPUs (", kVisible, "); start one rank a GPU");
  ::setenv(kVisible, (gpus.empty() ? std::to_string(local_rank) : gpus[number]).c_str(), 1);
}

}  // namespace

Run::Run(RunOptions options, RunHooks hooks, Communicator& ranks)
    : options_(std::move(options)), hooks_(std::move(hooks)), ranks_(ranks) {
  if (options_.full) options_.train.lora.reset();
  check_options(options_);
  if (!options_.dry_run) check_folder();
  const Seat seat = find_seat(ranks_);
  at::set_num_threads(options_.threads > 0 ? options_.threads : seat.num_threads);
  if (options_.cuda && ranks_.size() > 1) choose_gpu(seat.local_rank);
  checkpoint_ = find_model(options_);
  config_ = model::load_config(checkpoint_.weights);
  tokenizer_ = std::make_unique<text::Tokenizer>(
      text::Tokenizer::load(checkpoint_.weights, checkpoint_.adapter.value_or("")));
  rank::check_tokenizer(*tokenizer_, config_.vocab_size);
  format_ = std::make_unique<text::PromptFormat>(*tokenizer_, checkpoint_.defaults.prompt);
  options_.train.base_name = base_name();
}

void Run::check_folder() const {
  std::error_code none;
  const std::string& out = options_.out;
  const bool there = fs::exists(out, none);
  if (there && !fs::is_directory(out, none))
    base::fail(ErrorKind::kInvalidInput, "--out", out, " is a file, expected a folder");
  if (there && !fs::is_empty(out, none) && !options_.resume && !options_.overwrite)
    base::fail(ErrorKind::kInvalidInput, "--out", out,
               " exists; --resume goes on where it stopped, --overwrite starts anew");
  if (there) check_own();
  if (options_.resume && !newest_checkpoint(out))
    hooks_.warn(out + " has no checkpoint; starting from the first step");
}

// In a folder that no run has begun, files with the names of a run's are someone else's; in any,
// what this run reads must not be what it writes.
void Run::check_own() const {
  constexpr const char* kNames[] = {"train.toml",
                                    "log.jsonl",
                                    "best",
                                    "checkpoints",
                                    "erank.json",
                                    "config.json",
                                    "tokenizer.json",
                                    "model.safetensors",
                                    "adapter_config.json",
                                    "adapter_model.safetensors"};
  std::error_code none;
  const std::string &out = options_.out, toml = out + "/train.toml";
  const bool begun = base::file_exists(toml) &&
                     base::read_file(toml).find("\nmax-pass-tokens=") != std::string::npos;
  std::vector<std::string> targets;
  for (const char* name : kNames) {
    targets.push_back(out + "/" + name);
    if (!begun && fs::exists(fs::symlink_status(targets.back(), none)))
      base::fail(ErrorKind::kInvalidInput, "--out", out, " holds ", name,
                 ", but no run of this verb, by its train.toml; choose another folder");
  }
  std::vector<fs::path> folders = {out + "/best"};
  for (const auto& entry : fs::directory_iterator(out + "/checkpoints", none))
    folders.push_back(entry.path());
  for (const auto& own : folders)
    for (auto& file : rank::model_files(own)) targets.push_back(std::move(file));
  std::vector<std::string> inputs = rank::paths_of_model(options_.model);
  for (const auto& [name, path] : options_.data) inputs.push_back(path);
  inputs.insert(inputs.end(), {options_.validation, options_.validation_qrels});
  rank::refuse_inputs(targets, inputs);
}

// Every rank has looked at the folder before rank 0 changes it, and sees it changed.
void Run::make_folder() {
  ranks_.barrier();
  std::error_code error;
  fs::create_directories(options_.out, error);
  if (error)
    base::fail(ErrorKind::kInvalidInput, "--out", options_.out,
               ": cannot make this folder: ", error.message());
  if (ranks_.rank() == 0) {
    lock_.emplace(options_.out + "/run");
    if (options_.overwrite) remove_run(options_.out);
  }
  ranks_.barrier();
}

std::unique_ptr<RankingValidation> Run::make_validation() const {
  if (options_.validation.empty() != options_.validation_qrels.empty())
    base::fail(ErrorKind::kInvalidInput, "--validation",
               "needs both: --validation CANDIDATES and --validation-qrels QRELS");
  if (options_.validation.empty()) return nullptr;
  int64_t closed = 0;  // the most tokens between a prompt and its answer, without reasoning
  for (const rank::Mode mode : options_.validating.modes)
    closed = std::max(closed, mode == rank::Mode::kDirect ? std::ssize(format_->direct_close())
                                                          : std::ssize(format_->think_open()) +
                                                                std::ssize(format_->think_close()));
  std::vector<RankingValidation::List> lists;
  data::ReadNotes notes, qrels_notes;
  const auto all = data::read_candidates(options_.validation, {.notes = &notes});
  hooks_.tell(options_.validation, notes);
  for (const auto& candidates : all) {
    auto& list = lists.emplace_back();
    list.qid = candidates.query.id;
    for (const auto& candidate : candidates.candidates) {
      list.docids.push_back(candidate.document.id);
      auto ids = format_->render(instruction(), candidates.query.text, candidate.document.text).ids;
      const auto size = std::ssize(ids) + closed + 1;  // a digit
      if (size > config_.context())
        base::fail(ErrorKind::kInvalidInput, "--validation", options_.validation, ": query '",
                   list.qid, "' with document '", candidate.document.id, "' has ", size,
                   " tokens, the model reads at most ", config_.context(),
                   "; a smaller --max-doc-tokens or --max-query-tokens cuts them");
      list.prompts.push_back(std::move(ids));
    }
  }
  auto qrels = data::read_qrels(options_.validation_qrels, &qrels_notes);
  hooks_.tell(options_.validation_qrels, qrels_notes);
  return std::make_unique<RankingValidation>(
      std::move(lists), std::move(qrels), ModelFormat{*tokenizer_, *format_}, options_.validating);
}

model::Parameters& Run::parameters() {
  if (parameters_) return *parameters_;
  const at::Device device = options_.cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  const at::ScalarType dtype = options_.dtype.value_or(model::usual_dtype(device));
  if (options_.dry_run) {
    model::check_device(device);
    parameters_ = std::make_unique<model::Parameters>(config_, dtype, at::kMeta);
    if (checkpoint_.adapter && !options_.full) {
      model::Adapter adapter = model::load_adapter(config_, *checkpoint_.adapter, at::kMeta);
      options_.train.lora = adapter.config;
      parameters_->add_adapter(kTrainedAdapter, std::move(adapter));
    }
    return *parameters_;
  }
  std::optional<model::Adapter> adapter;
  if (checkpoint_.adapter && !options_.full)
    adapter = model::load_adapter(config_, *checkpoint_.adapter, device);
  // With --full it is merged while the weights are read.
  const auto source = model::CheckpointSource::open(
      checkpoint_.weights, options_.full ? checkpoint_.adapter.value_or("") : "");
  config_ = source.config();
  parameters_ = std::make_unique<model::Parameters>(config_, dtype, device);
  model::load_weights(*parameters_, source, hooks_.progress);
  if (adapter) parameters_->add_adapter(kTrainedAdapter, std::move(*adapter));
  return *parameters_;
}

base::Json Run::identity() const {
  std::istringstream lines(options_.config);
  base::Json all = base::Json::object();
  for (std::string line; std::getline(lines, line);) {
    const size_t equals = line.find('=');
    if (line.empty() || line[0] == '#' || equals == line.npos) continue;
    const std::string key = line.substr(0, equals);
    if (key != "checkpoint-steps" && key != "keep-checkpoints" && key != "threads")
      all[key] = line.substr(equals + 1);
  }
  all["model"] = rank::weights_digest(checkpoint_.weights);  // wherever it lies
  for (const auto& [name, path] : options_.data) all[name] = base::sha256_file(path);
  // These choose the best weights.
  if (!options_.validation.empty()) all["validation"] = base::sha256_file(options_.validation);
  if (!options_.validation_qrels.empty())
    all["validation-qrels"] = base::sha256_file(options_.validation_qrels);
  const base::Json defaults = rank::to_json(checkpoint_.defaults);
  for (const auto& [key, value] : defaults.items())
    if (key != "mode" && key != "score" && key != "max_think_tokens")
      all["value of " + key + " in the model's erank.json"] = value;
  if (checkpoint_.adapter)
    all["adapter"] = base::sha256_file(*checkpoint_.adapter + "/adapter_model.safetensors");
  // Merged by its rank and scale, which else are the options' own.
  if (checkpoint_.adapter && options_.full)
    all["adapter_config"] = base::sha256_file(*checkpoint_.adapter + "/adapter_config.json");
  return all;
}

std::string Run::base_name() const {
  const auto weights = fs::path(checkpoint_.weights).lexically_normal();
  return (weights.has_filename() ? weights : weights.parent_path()).filename();
}

std::unique_ptr<Trainer> Run::make_trainer(Objective& objective) {
  base::Json all = options_.dry_run ? base::Json::object() : identity();
  const std::string known = base::str(all.dump(), c10::toString(parameters().dtype()));
  const size_t own = std::hash<std::string>()(known) >> 12;
  for (const double other : gather(ranks_, static_cast<double>(own)))
    if (other != static_cast<double>(own))
      base::fail(ErrorKind::kInvalidInput, "train",
                 "the ranks do not have the same options, precision, model and data; each machine "
                 "must have the same files, and --precision names what all of them can");
  auto trainer = std::make_unique<Trainer>(parameters(), objective, options_.train, options_.out,
                                           std::move(all), ranks_);
  if (options_.resume && !options_.dry_run)
    for (const auto& damage : trainer->resume())
      hooks_.warn("a damaged checkpoint is skipped: " + damage);
  return trainer;
}

Estimate Run::estimate(Objective& objective, int64_t pass_tokens, int64_t longest) {
  const auto trainer = make_trainer(objective);
  const model::Parameters& parameters = *parameters_;
  const auto& c = config_;
  int64_t weights = 0;
  for (const auto& parameter : parameters.named()) weights += parameter.tensor.numel();
  // What a layer keeps for its backward pass: its two norms' inputs and outputs, q k v, the
  // attention's result, gate, up and their product; attention's weights are added.
  const int64_t per_token = c.num_hidden_layers * (5 * c.hidden_size + 2 * c.q_size() +
                                                   2 * c.kv_size() + 3 * c.intermediate_size);
  const int64_t attention =
      c.num_hidden_layers * c.num_attention_heads * std::min<int64_t>(longest, 1024);
  const auto width = static_cast<int64_t>(c10::elementSize(parameters.dtype()));
  const double peak = measure_peak(parameters.dtype(), options_.cuda, ranks_);
  return {.trained_parameters = trainer->num_trained_values(),
          .weights_bytes = weights * width,
          .optimizer_bytes = trainer->state_bytes(),
          .activation_bytes = pass_tokens * (per_token + attention) * width,
          .num_ranks = ranks_.size(),
          .gemm_peak = peak,
          .seconds_per_token = trainer->flops_per_token() / (0.5 * peak)};
}

TrainResult Run::train(Objective& objective) {
  parameters();
  make_folder();
  const auto trainer = make_trainer(objective);
  const bool writes = ranks_.rank() == 0;
  if (writes) base::write_file_atomic(options_.out + "/train.toml", options_.config);
  const TrainResult result = trainer->run(hooks_.progress, hooks_.stop);
  if (result.finished && writes) write_model();
  return result;
}

void Run::write_model() {
  const std::string& out = options_.out;
  if (options_.full) {
    model::save_weights(*parameters_, out, model::kMaxShardBytes, hooks_.progress);
    text::copy_tokenizer(checkpoint_.weights, out, checkpoint_.adapter.value_or(""));
  } else {
    if (checkpoint_.adapter) text::copy_own_tokenizer(*checkpoint_.adapter, out);
    model::save_adapter(*parameters_->adapter(kTrainedAdapter), out, base_name(), at::kBFloat16);
  }
  rank::write_checkpoint(out, checkpoint_.defaults, options_.full ? nullptr : &checkpoint_);
}

}  // namespace erank::train
