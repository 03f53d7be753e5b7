#include "cli/train_options.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <map>
#include <sstream>

#include "cli/progress_line.h"
#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/model/peft_folder.h"
#include "erank/rank/checkpoint.h"

namespace erank::cli {
namespace {

using base::ErrorKind;
using base::OrderedJson;
using base::str;

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
                 "'; expected an option of `erank train ", verb.get_name(),
                 " --help` without its dashes");
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

// An adapter that is trained on keeps its form, which the saved options then name.
void adopt_adapter(CLI::App& verb, TrainFlags& flags) {
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

// "direct", "think", or both with a comma.
std::vector<rank::Mode> parse_validation_modes(const std::string& text) {
  using enum rank::Mode;
  const std::map<std::string, std::vector<rank::Mode>> known = {
      {"direct", {kDirect}},
      {"think", {kThink}},
      {"direct,think", {kDirect, kThink}},
      {"think,direct", {kThink, kDirect}}};
  const auto found = known.find(text);
  if (found == known.end())
    base::fail(ErrorKind::kInvalidInput, "--validation-modes", "is '", text,
               "', expected direct, think, or both: direct,think or think,direct");
  return found->second;
}

}  // namespace

void TrainFlags::add_to(CLI::App& verb) {
  const OptionAdder add{verb};
  run_only(verb.add_option("--config", config,
                           "TOML file with any of these options; the command line goes first"));
  run_only(verb.add_option("--out", out, "folder for the model, checkpoints and the log"));
  run_only(verb.add_flag("--resume", resume, "go on from the newest checkpoint in --out"));
  run_only(verb.add_flag("--overwrite", overwrite, "start anew in an existing --out"));
  run_only(verb.add_flag("--dry-run", dry_run, "print steps, tokens, memory and time"));
  run_only(verb.add_flag("--json", json, "one JSON object on stdout"));
  run_only(verb.add_option("--stop-after", train.stop_after,
                           "end this run after so many steps, with a checkpoint"));
  verb.add_option(
      "--model", model,
      "Hugging Face folder, .gguf file, or adapter folder, whose adapter is trained on (default: "
      "erank-135m's base)");
  verb.add_flag("--full", full, "train every parameter instead of a LoRA adapter");
  add.option("--lora-rank", lora.rank, "rank of a new LoRA adapter")->check(CLI::Range(1, 4096));
  add.option("--lora-alpha", lora.alpha, "LoRA alpha: the adapter is scaled by alpha / rank");
  add.option("--lora-dropout", lora.dropout, "dropout probability on the adapter's input")
      ->check(CLI::Range(0.0, 0.99));
  verb.add_option("--lora-targets", lora.target_modules,
                  "layers that get an adapter, e.g. q_proj,v_proj (default: all linear layers but "
                  "the head)")
      ->delimiter(',');
  verb.add_option("--validation", validation,
                  "candidates with text (JSON lines); nDCG@10 on them chooses the best weights");
  verb.add_option("--validation-qrels", validation_qrels, "judgements of --validation (qrels)");
  add.option(
      "--validation-modes", validation_modes,
      "what is validated: direct answers (direct), answers after greedy reasoning (think), or "
      "both, e.g. think,direct: the first one chooses the best weights");
  add.option("--max-think-tokens", max_think_tokens,
             "most tokens that the model writes: of reasoning in validation, of a whole sample")
      ->check(CLI::Range(1, 1 << 20));
  add.option("--validate-steps", train.validate_steps, "steps between validations; 0: at the end");
  add.option("--learning-rate", train.schedule.peak, "peak learning rate");
  add.option("--warmup-ratio", train.schedule.warmup_ratio,
             "linear warm-up of the learning rate, as a share of all steps")
      ->check(CLI::Range(0.0, 1.0));
  add.choice("--schedule", schedule, {"cosine", "constant"},
             "learning rate schedule after the warm-up");
  add.option("--floor-ratio", train.schedule.floor_ratio,
             "learning rate at the end of the cosine, as a share of the peak")
      ->check(CLI::Range(0.0, 1.0));
  add.option("--adam-beta1", train.adamw.beta1, "AdamW: decay rate of the first moment")
      ->check(CLI::Range(0.0, 0.999999));
  add.option("--adam-beta2", train.adamw.beta2, "AdamW: decay rate of the second moment")
      ->check(CLI::Range(0.0, 0.999999));
  add.option("--weight-decay", train.adamw.weight_decay, "AdamW: decoupled weight decay");
  add.option("--clip-norm", train.adamw.clip_norm, "largest norm of all gradients; 0: no clipping");
  add.option("--max-pass-tokens", max_pass_tokens,
             "most tokens of one forward and backward pass; bounds the memory")
      ->check(CLI::Range(1, 1 << 24));
  add.choice("--layout", layout, {"paper", "passage-last"},
             "layout of the prompt (default: the model's)")
      ->default_str("");
  add.choice("--scale", scale, {"yes-no", "0-3", "0-10"},
             "what the model is asked for (default: the model's)")
      ->default_str("");
  verb.add_option("--instruction", instruction, "relevance instruction for pairs without one");
  verb.add_option("--max-query-tokens", max_query_tokens,
                  "cut queries to so many tokens (default: the model's)");
  verb.add_option("--max-doc-tokens", max_document_tokens,
                  "cut passages to so many tokens (default: the model's)");
  add.option("--checkpoint-steps", train.checkpoint_steps, "steps between checkpoints");
  add.option("--keep-checkpoints", train.keep_checkpoints, "number of newest checkpoints to keep");
  add.option("--seed", train.seed, "random seed of the order, new adapters and dropout");
  add.choice("--precision", precision, {"auto", "fp32", "bf16"},
             "precision of weights and activations");
  add.option("--device", device, "device to train on: cpu or cuda")
      ->check([](const std::string& text) {
        return text == "cpu" || text == "cuda"
                   ? std::string()
                   : str("'", text,
                         "': expected cpu or cuda; a process trains on one GPU: start "
                         "one for each with mpirun, or choose one with CUDA_VISIBLE_DEVICES");
      });
  add.option("--threads", threads, "compute threads; 0: one per processor")
      ->check(CLI::Range(0, 1024));
}

void TrainFlags::complete(CLI::App& verb) {
  read_config(verb, config);
  adopt_adapter(verb, *this);
}

train::RunOptions TrainFlags::run_options(
    const CLI::App& verb, std::vector<std::pair<std::string, std::string>> data) const {
  for (const auto& [name, path] : data)
    if (path.empty())
      base::fail(ErrorKind::kInvalidInput, ("--" + name).c_str(),
                 "is required: ", verb.get_option("--" + name)->get_description());
  if (out.empty() && !dry_run)
    base::fail(ErrorKind::kInvalidInput, "--out", "is required: the folder to write");
  train::RunOptions run;
  run.model = model, run.out = out;
  run.resume = resume, run.overwrite = overwrite, run.dry_run = dry_run, run.full = full;
  if (!scale.empty()) run.scale = text::parse_scale(scale, "--scale");
  if (!layout.empty())
    run.layout = layout == "paper" ? text::Layout::kPaper : text::Layout::kPassageLast;
  run.instruction = instruction;
  run.max_query_tokens = max_query_tokens, run.max_document_tokens = max_document_tokens;
  if (precision != "auto") run.dtype = precision == "fp32" ? at::kFloat : at::kBFloat16;
  run.cuda = device == "cuda";
  run.threads = threads;
  run.validation = validation, run.validation_qrels = validation_qrels;
  run.validating = {parse_validation_modes(validation_modes), max_think_tokens};
  run.train = train;
  run.train.lora = lora;
  run.train.schedule.constant = schedule == "constant";
  run.data = std::move(data);
  run.config = verb.config_to_str(true);
  return run;
}

train::RunHooks run_hooks(Context& context, const train::Communicator& ranks) {
  return {context.progress.get(), [] { return interrupted(); },
          [says = ranks.rank() == 0](const std::string& line) {
            if (says) warn(line);
          }};
}

std::string gigabytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f GB", bytes / 1e9);
  return text;
}

void add_estimate(OrderedJson& json, const train::Estimate& estimate, double seconds) {
  json["trained_parameters"] = estimate.trained_parameters;
  json["weights_bytes"] = estimate.weights_bytes;
  json["optimizer_bytes"] = estimate.optimizer_bytes;
  json["activation_bytes"] = estimate.activation_bytes;
  json["ranks"] = estimate.num_ranks;
  json["gemm_peak_gflops"] = estimate.gemm_peak / 1e9;
  json["seconds_at_half_of_it"] = seconds;
}

std::string estimate_text(const train::Estimate& estimate, double seconds,
                          const std::string& more_memory, const std::string& shares) {
  const auto size = [](int64_t bytes) { return gigabytes(static_cast<double>(bytes)); };
  return str("trained parameters  ", estimate.trained_parameters, "\n",
             estimate.num_ranks > 1
                 ? str("ranks               ", estimate.num_ranks, ", each with this memory\n")
                 : "",
             "memory              weights ", size(estimate.weights_bytes), ", optimiser ",
             size(estimate.optimizer_bytes), ", a pass up to ", size(estimate.activation_bytes),
             more_memory, "\n", "time                about ", duration_text(seconds), shares,
             " (at half of the GEMM peak of ", std::llround(estimate.gemm_peak / 1e9),
             " GFLOP/s), without validation\n");
}

void report_run(const TrainFlags& flags, const train::Run& run, const train::TrainResult& result,
                int64_t num_steps) {
  if (run.ranks().rank() > 0) return;
  if (!result.finished)
    return ProgressLine::print_above(str("erank: stopped after step ", result.steps_done, " of ",
                                         num_steps, "; go on with --resume"));
  if (flags.json) {
    OrderedJson json = {{"out", flags.out}, {"steps", result.steps_done}};
    if (result.best_metric) {
      json["best_step"] = result.best_step;
      json["best_ndcg_10"] = *result.best_metric;
      json["last_ndcg_10"] = *result.last_metric;
    }
    std::cout << json.dump() << "\n";
    return;
  }
  std::cout << flags.out << ": " << result.steps_done << " steps";
  if (result.best_metric)
    std::cout << str(", nDCG@10 ", std::round(*result.best_metric * 1e4) / 1e4, " at step ",
                     result.best_step);
  std::cout << "\n";
}

}  // namespace erank::cli
