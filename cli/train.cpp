#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>

#include "cli/digest.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/progress_line.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/threads.h"
#include "erank/data/records.h"
#include "erank/data/training_pairs.h"
#include "erank/model/gemm_peak.h"
#include "erank/model/lora.h"
#include "erank/model/weights.h"
#include "erank/rank/checkpoint.h"
#include "erank/text/tokenizer_export.h"
#include "erank/train/sft.h"

namespace erank::cli {
namespace {

using base::ErrorKind;
using base::OrderedJson;
using base::str;

struct SftFlags {
  std::string model, data, out, config;
  std::string validation, validation_qrels;
  std::string layout, instruction, precision = "auto", device = "cpu";
  std::string schedule = "cosine", weighting = "examples", modes = "both", targets = "soft";
  int max_query_tokens = 0, max_document_tokens = 0, threads = 0;
  bool full = false, resume = false, overwrite = false, dry_run = false, json = false;
  model::LoraConfig lora;
  train::TrainOptions train;
  train::SftOptions sft;
};

constexpr const char* kExample =
    "Examples:\n"
    "  erank train sft --data pairs.jsonl --out run1 --dry-run\n"
    "  erank train sft --data pairs.jsonl --out run1 --validation dev.jsonl "
    "--validation-qrels dev.qrels --validate-steps 100\n"
    "  erank train sft --config run1/train.toml --data pairs.jsonl --out run2\n"
    "  erank rerank --model run1 --query 'why is the sky blue' --docs docs.jsonl";

// Options that the command line does not give take their values from a TOML file. A table's name
// is not looked at: the file that a run writes has none.
void read_config(CLI::App& verb, const std::string& path) {
  if (path.empty()) return;
  std::istringstream text(base::read_file(path, size_t{1} << 20));
  std::vector<CLI::ConfigItem> items;
  try {
    items = CLI::ConfigTOML().from_config(text);
  } catch (const CLI::Error& e) {
    base::fail(ErrorKind::kInvalidInput, "--config", path, ": ", e.what());
  }
  for (const auto& item : items) {
    if (item.name == "++" || item.name == "--") continue;  // a table begins or ends
    CLI::Option* option = verb.get_option_no_throw("--" + item.name);
    if (!option || !option->get_configurable())
      base::fail(ErrorKind::kInvalidInput, "--config", path, ": unknown key '", item.name,
                 "'; expected an option of `erank train sft --help` without its dashes");
    if (option->count() > 0) continue;
    // How the file says that a text was not given.
    if (item.inputs == std::vector<std::string>{""}) continue;
    try {
      if (option->get_expected_min() == 0)
        option->add_result(option->get_flag_value(item.name, CLI::ConfigTOML().to_flag(item)));
      else
        option->add_result(item.inputs);
      option->run_callback();
    } catch (const CLI::Error& e) {
      base::fail(ErrorKind::kInvalidInput, "--config", path, ": '", item.name, "': ", e.what());
    }
  }
}

// What the model was asked for with this run's changes.
rank::Checkpoint find_model(const SftFlags& flags) {
  rank::Checkpoint checkpoint = rank::find_checkpoint(flags.model);
  rank::CheckpointDefaults& defaults = checkpoint.defaults;
  if (!flags.layout.empty())
    defaults.prompt.layout =
        flags.layout == "paper" ? text::Layout::kPaper : text::Layout::kPassageLast;
  if (!flags.instruction.empty()) defaults.instruction = flags.instruction;
  if (flags.max_query_tokens > 0) defaults.prompt.max_query_tokens = flags.max_query_tokens;
  if (flags.max_document_tokens > 0)
    defaults.prompt.max_document_tokens = flags.max_document_tokens;
  return checkpoint;
}

// An adapter that is trained on keeps its form, which the saved options then name.
void adopt_adapter(CLI::App& verb, SftFlags& flags) {
  if (flags.full || flags.model.empty()) return;
  const auto adapter = rank::find_checkpoint(flags.model).adapter;
  if (!adapter) return;
  const model::LoraConfig stored = model::read_lora_config(*adapter);
  const auto adopt = [&](const char* name, const auto& asked, const auto& theirs) {
    CLI::Option* option = verb.get_option(name);
    if (option->count() > 0 && asked != theirs)
      base::fail(ErrorKind::kInvalidInput, name, "differs from that of the adapter in ", *adapter,
                 ", which is trained on; leave it out, or use `erank model merge` first");
    return option;
  };
  adopt("--lora-rank", flags.lora.rank, stored.rank)->default_str(str(stored.rank));
  adopt("--lora-alpha", flags.lora.alpha, stored.alpha)
      ->default_str(base::dump_json(base::Json(stored.alpha)));
  adopt("--lora-dropout", flags.lora.dropout, stored.dropout)
      ->default_str(base::dump_json(base::Json(stored.dropout)));
  const auto sorted = [](std::vector<std::string> names) {
    std::sort(names.begin(), names.end());
    return names;
  };
  adopt("--lora-targets", sorted(flags.lora.target_modules), sorted(stored.target_modules));
  flags.lora = stored;
}

class SftRun {
 public:
  SftRun(SftFlags flags, std::string effective_config, Context& context)
      : flags_(std::move(flags)), config_(std::move(effective_config)), context_(context) {}

  void run() {
    check_folder();
    at::set_num_threads(flags_.threads > 0 ? flags_.threads : base::num_processors());
    checkpoint_ = find_model(flags_);
    if (flags_.model.empty()) checkpoint_.adapter.reset();  // the default is the base, anew
    tokenizer_ = std::make_unique<text::Tokenizer>(text::Tokenizer::load(checkpoint_.weights));
    format_ = std::make_unique<text::PromptFormat>(*tokenizer_, checkpoint_.defaults.prompt);
    auto objective = make_objective();
    const at::Device device =
        flags_.device == "cuda" ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
    const at::ScalarType dtype = flags_.precision == "fp32"   ? at::kFloat
                                 : flags_.precision == "bf16" ? at::kBFloat16
                                                              : model::usual_dtype(device);
    const auto parameters =
        model::load_parameters(checkpoint_.weights, dtype, device, context_.progress.get());
    check_lengths(parameters->config());
    if (checkpoint_.adapter) {
      parameters->add_adapter(
          train::kTrainedAdapter,
          model::load_adapter(parameters->config(), *checkpoint_.adapter, device));
      if (flags_.full) parameters->merge_active();
    }
    train::TrainOptions options = flags_.train;
    if (flags_.full)
      options.lora.reset();
    else
      options.lora = flags_.lora;
    options.seed = flags_.sft.seed;
    options.schedule.constant = flags_.schedule == "constant";
    options.base_name = base_name();
    if (!flags_.dry_run) make_folder();
    train::Trainer trainer(*parameters, *objective, options, flags_.out, identity());
    if (flags_.resume) trainer.resume();
    if (flags_.dry_run) return dry_run(*parameters, *objective, trainer);
    base::write_file_atomic(flags_.out + "/train.toml", config_);
    const auto result = trainer.run(context_.progress.get(), [] { return interrupted(); });
    if (!result.finished) {
      ProgressLine::print_above(str("erank: stopped after step ", result.steps_done, " of ",
                                    objective->num_steps(), "; go on with --resume"));
      return;
    }
    write_model(*parameters);
    report(result);
  }

 private:
  void check_folder() {
    if (flags_.dry_run) return;
    namespace fs = std::filesystem;
    std::error_code none;
    const bool there = fs::exists(flags_.out, none);
    if (there && !fs::is_directory(flags_.out, none))
      base::fail(ErrorKind::kInvalidInput, "--out", flags_.out, " is a file, expected a folder");
    if (there && !fs::is_empty(flags_.out, none) && !flags_.resume && !flags_.overwrite)
      base::fail(ErrorKind::kInvalidInput, "--out", flags_.out,
                 " exists; --resume goes on where it stopped, --overwrite starts anew");
    if (there) check_own(flags_.out);
    if (flags_.resume && !train::newest_checkpoint(flags_.out))
      warn(flags_.out + " has no checkpoint; starting from the first step");
  }

  // In a folder that no run has begun, files with the names of a run's are someone else's; in any,
  // what this run reads must not be what it writes.
  void check_own(const std::string& folder) const {
    namespace fs = std::filesystem;
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
    const std::string toml = folder + "/train.toml";
    const bool begun = base::file_exists(toml) &&
                       base::read_file(toml).find("\nmax-pass-tokens=") != std::string::npos;
    std::vector<std::string> targets;
    for (const char* name : kNames) {
      targets.push_back(folder + "/" + name);
      if (!begun && fs::exists(fs::symlink_status(targets.back(), none)))
        base::fail(ErrorKind::kInvalidInput, "--out", folder, " holds ", name,
                   ", but no run of this verb, by its train.toml; choose another folder");
    }
    std::vector<fs::path> folders = {folder + "/best"};
    for (const auto& entry : fs::directory_iterator(folder + "/checkpoints", none))
      folders.push_back(entry.path());
    for (const auto& own : folders)
      for (auto& file : model_files(own)) targets.push_back(std::move(file));
    std::vector<std::string> inputs = paths_of_model(flags_.model);
    inputs.insert(inputs.end(), {flags_.data, flags_.validation, flags_.validation_qrels});
    refuse_inputs(targets, inputs);
  }

  void make_folder() {
    std::error_code error;
    std::filesystem::create_directories(flags_.out, error);
    if (error)
      base::fail(ErrorKind::kInvalidInput, "--out", flags_.out,
                 ": cannot make this folder: ", error.message());
    if (flags_.overwrite) train::remove_run(flags_.out);
  }

  std::unique_ptr<train::SftObjective> make_objective() {
    const auto pairs = data::read_training_pairs(flags_.data, context_.progress.get());
    train::ExampleOptions options;
    options.modes = flags_.modes == "direct"  ? train::Modes::kDirect
                    : flags_.modes == "think" ? train::Modes::kThink
                                              : train::Modes::kBoth;
    options.soft = flags_.targets == "soft";
    options.default_instruction = checkpoint_.defaults.instruction;
    const train::ExampleWriter writer(*format_, *tokenizer_, options);
    std::vector<train::Example> examples(pairs.size());
    base::parallel_ranges(pairs.size(), base::num_processors(), [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) examples[i] = writer.write(pairs[i]);
    });
    for (const auto& example : examples) longest_ = std::max(longest_, example.num_tokens());
    num_pairs_ = static_cast<int64_t>(pairs.size());
    train::SftOptions sft = flags_.sft;
    sft.packing.weighting =
        flags_.weighting == "tokens" ? train::Weighting::kTokens : train::Weighting::kExamples;
    return std::make_unique<train::SftObjective>(std::move(examples), sft, make_validation());
  }

  std::unique_ptr<train::RankingValidation> make_validation() {
    if (flags_.validation.empty() != flags_.validation_qrels.empty())
      base::fail(ErrorKind::kInvalidInput, "--validation",
                 "needs both: --validation CANDIDATES and --validation-qrels QRELS");
    if (flags_.validation.empty()) return nullptr;
    std::vector<train::RankingValidation::List> lists;
    for (const auto& candidates : data::read_candidates(flags_.validation)) {
      auto& list = lists.emplace_back();
      list.qid = candidates.query.id;
      for (const auto& candidate : candidates.candidates) {
        list.docids.push_back(candidate.document.id);
        auto ids = format_
                       ->render(checkpoint_.defaults.instruction, candidates.query.text,
                                candidate.document.text)
                       .ids;
        const auto size = std::ssize(ids) + std::ssize(format_->direct_close()) + 1;  // a digit
        longest_validation_ = std::max(longest_validation_, size);
        list.prompts.push_back(std::move(ids));
      }
    }
    return std::make_unique<train::RankingValidation>(
        std::move(lists), data::read_qrels(flags_.validation_qrels), rank::ScoreReader(*tokenizer_),
        format_->direct_close());
  }

  void check_lengths(const model::ModelConfig& config) {
    const auto check = [&](const char* flag, const std::string& file, int64_t tokens) {
      if (tokens > config.max_position_embeddings)
        base::fail(ErrorKind::kInvalidInput, flag, file, ": a pair has ", tokens,
                   " tokens, the model reads at most ", config.max_position_embeddings,
                   "; a smaller --max-doc-tokens or --max-query-tokens cuts them");
    };
    check("--data", flags_.data, longest_);
    check("--validation", flags_.validation, longest_validation_);
  }

  // What the weights of a run depend on.
  base::Json identity() const {
    std::istringstream lines(config_);
    base::Json options = base::Json::object();
    for (std::string line; std::getline(lines, line);) {
      const size_t equals = line.find('=');
      if (line.empty() || line[0] == '#' || equals == line.npos) continue;
      const std::string key = line.substr(0, equals);
      if (key != "checkpoint-steps" && key != "keep-checkpoints" && key != "threads")
        options[key] = line.substr(equals + 1);
    }
    options["pairs"] = num_pairs_;
    options["data"] = base::sha256_file(flags_.data);
    const base::Json defaults = rank::to_json(checkpoint_.defaults);
    for (const auto& [key, value] : defaults.items())
      if (key != "mode" && key != "score" && key != "max_think_tokens")
        options["value of " + key + " in the model's erank.json"] = value;
    if (checkpoint_.adapter)
      options["adapter"] = base::sha256_file(*checkpoint_.adapter + "/adapter_model.safetensors");
    return options;
  }

  std::string base_name() const {
    const auto weights = std::filesystem::path(checkpoint_.weights).lexically_normal();
    return (weights.has_filename() ? weights : weights.parent_path()).filename();
  }

  void write_model(const model::Parameters& parameters) {
    if (flags_.full) {
      model::save_weights(parameters, flags_.out, model::kMaxShardBytes, context_.progress.get());
      text::copy_tokenizer(checkpoint_.weights, flags_.out);
    } else {
      model::save_adapter(*parameters.adapter(train::kTrainedAdapter), flags_.out, base_name(),
                          at::kBFloat16);
    }
    rank::write_checkpoint(flags_.out, checkpoint_.defaults, flags_.full ? nullptr : &checkpoint_);
  }

  void report(const train::TrainResult& result) {
    if (flags_.json) {
      OrderedJson json = {{"out", flags_.out}, {"steps", result.steps_done}};
      if (result.best_metric) {
        json["best_step"] = result.best_step;
        json["best_ndcg_10"] = *result.best_metric;
        json["last_ndcg_10"] = *result.last_metric;
      }
      std::cout << json.dump() << "\n";
      return;
    }
    std::cout << flags_.out << ": " << result.steps_done << " steps";
    if (result.best_metric)
      std::cout << str(", nDCG@10 ", std::round(*result.best_metric * 1e4) / 1e4, " at step ",
                       result.best_step);
    std::cout << "\n";
  }

  // Steps, tokens and memory are counted, time is estimated from the GEMM peak.
  void dry_run(const model::Parameters& parameters, const train::SftObjective& objective,
               const train::Trainer& trainer) {
    const auto& c = parameters.config();
    const auto bytes_of = [](at::ScalarType type) {
      return static_cast<int64_t>(c10::elementSize(type));
    };
    int64_t weights = 0;
    for (const auto& parameter : parameters.named()) weights += parameter.tensor.numel();
    const int64_t steps = objective.num_steps(), sample = std::min<int64_t>(steps, 50);
    const double tokens = static_cast<double>(objective.num_tokens(0, sample)) /
                          static_cast<double>(sample) * static_cast<double>(steps);
    // What a layer keeps for its backward pass: its two norms' inputs and outputs, q k v, the
    // attention's result, gate, up and their product; attention's weights are added.
    const int64_t per_token = c.num_hidden_layers * (5 * c.hidden_size + 2 * c.q_size() +
                                                     2 * c.kv_size() + 3 * c.intermediate_size);
    const int64_t attention =
        c.num_hidden_layers * c.num_attention_heads * std::min<int64_t>(longest_, 1024);
    const int64_t width = bytes_of(parameters.dtype());
    const int64_t activations = flags_.sft.packing.max_tokens * (per_token + attention) * width;
    const double peak = model::gemm_peak({.precision = model::precision_of(parameters.dtype()),
                                          .cuda = parameters.device().is_cuda(),
                                          .threads = at::get_num_threads()})
                            .flops_per_s;
    const double seconds = tokens * trainer.flops_per_token() / (0.5 * peak);
    OrderedJson json = {{"pairs", num_pairs_},
                        {"steps", steps},
                        {"tokens", static_cast<int64_t>(tokens)},
                        {"longest_pair_tokens", longest_},
                        {"trained_parameters", trainer.num_trained_values()},
                        {"weights_bytes", weights * width},
                        {"optimizer_bytes", trainer.state_bytes()},
                        {"activation_bytes", activations},
                        {"gemm_peak_gflops", peak / 1e9},
                        {"seconds_at_half_of_it", seconds}};
    if (flags_.json) {
      std::cout << json.dump() << "\n";
      return;
    }
    const auto gb = [](int64_t bytes) {
      char text[32];
      std::snprintf(text, sizeof text, "%.2f GB", static_cast<double>(bytes) / 1e9);
      return std::string(text);
    };
    std::cout << "pairs               " << num_pairs_ << ", the longest of " << longest_
              << " tokens\n"
              << "steps               " << steps << "\n"
              << "tokens              " << static_cast<int64_t>(tokens) << " in all\n"
              << "trained parameters  " << trainer.num_trained_values() << "\n"
              << "memory              weights " << gb(weights * width) << ", optimiser "
              << gb(trainer.state_bytes()) << ", a pass up to " << gb(activations) << "\n"
              << "time                about " << duration_text(seconds)
              << " (at half of the GEMM peak of " << std::llround(peak / 1e9)
              << " GFLOP/s), without validation\n";
  }

  SftFlags flags_;
  std::string config_;
  Context& context_;
  rank::Checkpoint checkpoint_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::unique_ptr<text::PromptFormat> format_;
  int64_t longest_ = 0, longest_validation_ = 0, num_pairs_ = 0;
};

void add_sft(CLI::App& train, Context& context) {
  auto* verb =
      train.add_subcommand("sft", "Supervised fine-tuning on a teacher's scores and reasoning");
  auto flags = std::make_shared<SftFlags>();
  verb->footer(kExample);
  const auto option = [&](const char* name, auto& value, const char* text) {
    return verb->add_option(name, value, text)->capture_default_str();
  };
  const auto choice = [&](const char* name, std::string& value, std::vector<std::string> allowed,
                          const char* text) {
    return option(name, value, text)->check(CLI::IsMember(std::move(allowed)));
  };
  const auto run_only = [](CLI::Option* o) { o->configurable(false); };
  run_only(verb->add_option("--config", flags->config,
                            "TOML file with any of these options; the command line goes first"));
  run_only(verb->add_option("--data", flags->data, "training pairs, JSON lines (docs/formats.md)"));
  run_only(verb->add_option("--out", flags->out, "folder for the model, checkpoints and the log"));
  run_only(verb->add_flag("--resume", flags->resume, "go on from the newest checkpoint in --out"));
  run_only(verb->add_flag("--overwrite", flags->overwrite, "start anew in an existing --out"));
  run_only(verb->add_flag("--dry-run", flags->dry_run, "print steps, tokens, memory and time"));
  run_only(verb->add_flag("--json", flags->json, "one JSON object on stdout"));
  run_only(verb->add_option("--stop-after", flags->train.stop_after,
                            "end this run after so many steps, with a checkpoint"));
  verb->add_option(
      "--model", flags->model,
      "Hugging Face folder, .gguf file, or adapter folder, whose adapter is trained on (default: "
      "erank-135m's base)");
  verb->add_flag("--full", flags->full, "train every parameter instead of a LoRA adapter");
  option("--lora-rank", flags->lora.rank, "rank of a new LoRA adapter")->check(CLI::Range(1, 4096));
  option("--lora-alpha", flags->lora.alpha, "LoRA alpha: the adapter is scaled by alpha / rank");
  option("--lora-dropout", flags->lora.dropout, "dropout probability on the adapter's input")
      ->check(CLI::Range(0.0, 0.99));
  verb->add_option("--lora-targets", flags->lora.target_modules,
                   "layers that get an adapter, e.g. q_proj,v_proj (default: all linear layers but "
                   "the head)")
      ->delimiter(',');
  verb->add_option("--validation", flags->validation,
                   "candidates with text (JSON lines); nDCG@10 on them chooses the best weights");
  verb->add_option("--validation-qrels", flags->validation_qrels,
                   "judgements of --validation (qrels)");
  option("--validate-steps", flags->train.validate_steps,
         "steps between validations; 0: at the end");
  option("--learning-rate", flags->train.schedule.peak, "peak learning rate");
  option("--warmup-ratio", flags->train.schedule.warmup_ratio,
         "linear warm-up of the learning rate, as a share of all steps")
      ->check(CLI::Range(0.0, 1.0));
  choice("--schedule", flags->schedule, {"cosine", "constant"},
         "learning rate schedule after the warm-up");
  option("--floor-ratio", flags->train.schedule.floor_ratio,
         "learning rate at the end of the cosine, as a share of the peak")
      ->check(CLI::Range(0.0, 1.0));
  option("--adam-beta1", flags->train.adamw.beta1, "AdamW: decay rate of the first moment")
      ->check(CLI::Range(0.0, 0.999999));
  option("--adam-beta2", flags->train.adamw.beta2, "AdamW: decay rate of the second moment")
      ->check(CLI::Range(0.0, 0.999999));
  option("--weight-decay", flags->train.adamw.weight_decay, "AdamW: decoupled weight decay");
  option("--clip-norm", flags->train.adamw.clip_norm,
         "largest norm of all gradients; 0: no clipping");
  option("--batch-size", flags->sft.batch_size, "pairs per step")->check(CLI::Range(1, 1 << 20));
  option("--group-size", flags->sft.group_size,
         "pairs of one query in a group, which share its prompt's beginning")
      ->check(CLI::Range(1, 1 << 20));
  option("--epochs", flags->sft.epochs, "passes over the data; may be a fraction")
      ->check(CLI::PositiveNumber);
  option("--max-steps", flags->sft.max_steps, "most training steps; 0: no limit");
  option("--max-pass-tokens", flags->sft.packing.max_tokens,
         "most tokens of one forward and backward pass; bounds the memory")
      ->check(CLI::Range(1, 1 << 24));
  choice("--weighting", flags->weighting, {"examples", "tokens"},
         "what weighs equally in the loss: every example, or every learned token");
  choice("--modes", flags->modes, {"both", "direct", "think"},
         "which answers a pair with reasoning trains: direct, think or both");
  choice("--targets", flags->targets, {"soft", "hard"},
         "learn the teacher's distribution where there is one (soft), or its integer (hard)");
  choice("--layout", flags->layout, {"paper", "passage-last"},
         "layout of the prompt (default: the model's)")
      ->default_str("");
  verb->add_option("--instruction", flags->instruction,
                   "relevance instruction for pairs without one");
  verb->add_option("--max-query-tokens", flags->max_query_tokens,
                   "cut queries to so many tokens (default: the model's)");
  verb->add_option("--max-doc-tokens", flags->max_document_tokens,
                   "cut passages to so many tokens (default: the model's)");
  option("--checkpoint-steps", flags->train.checkpoint_steps, "steps between checkpoints");
  option("--keep-checkpoints", flags->train.keep_checkpoints,
         "number of newest checkpoints to keep");
  option("--seed", flags->sft.seed, "random seed of the order, new adapters and dropout");
  choice("--precision", flags->precision, {"auto", "fp32", "bf16"},
         "precision of weights and activations");
  choice("--device", flags->device, {"cpu", "cuda"}, "device to train on: cpu or cuda");
  option("--threads", flags->threads, "compute threads; 0: one per processor")
      ->check(CLI::Range(0, 1024));
  verb->callback([flags, verb, &context] {
    context.run = [flags, verb, &context] {
      read_config(*verb, flags->config);
      adopt_adapter(*verb, *flags);
      if (flags->data.empty())
        base::fail(ErrorKind::kInvalidInput, "--data", "is required: the training pairs");
      if (flags->out.empty() && !flags->dry_run)
        base::fail(ErrorKind::kInvalidInput, "--out", "is required: the folder to write");
      SftRun(*flags, verb->config_to_str(true), context).run();
    };
  });
}

}  // namespace

void add_train(CLI::App& app, Context& context) {
  auto* train = app.add_subcommand("train", "Train a model to rerank");
  train->require_subcommand(1);
  add_sft(*train, context);
  add_train_plot(*train, context);
}

}  // namespace erank::cli
