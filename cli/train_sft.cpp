#include <algorithm>
#include <iostream>

#include "cli/ranks.h"
#include "cli/train_options.h"
#include "erank/base/error.h"
#include "erank/train/sft.h"
#include "erank/train/sft_data.h"

namespace erank::cli {
namespace {

using base::OrderedJson;

struct SftFlags {
  TrainFlags shared;
  std::string data, weighting = "examples", modes = "both", targets = "soft", rank_loss = "none";
  bool clean = false;
  train::SftOptions sft;
};

constexpr const char* kExample =
    "Examples:\n"
    "  erank train sft --data pairs.jsonl --out run1 --dry-run\n"
    "  erank train sft --data pairs.jsonl --out run1 --validation dev.jsonl "
    "--validation-qrels dev.qrels --validate-steps 100\n"
    "  erank train sft --config run1/train.toml --data pairs.jsonl --out run2\n"
    "  erank rerank --model run1 --query 'why is the sky blue' --docs docs.jsonl";

// Steps, tokens and memory are counted, time is estimated from the GEMM peak.
void dry_run(const SftFlags& flags, train::Run& run, train::SftObjective& objective,
             const train::SftData& data) {
  const int64_t num_pairs = objective.num_examples(), steps = objective.num_steps(),
                sample = std::min<int64_t>(steps, 50);
  const double tokens = static_cast<double>(objective.num_tokens(0, sample)) /
                        static_cast<double>(sample) * static_cast<double>(steps);
  const auto estimate = run.estimate(objective, flags.shared.max_pass_tokens, data.longest);
  if (run.ranks().rank() > 0) return;
  const double seconds = tokens * estimate.seconds_per_token;
  if (flags.shared.json) {
    OrderedJson json = {{"pairs", num_pairs},
                        {"steps", steps},
                        {"tokens", static_cast<int64_t>(tokens)},
                        {"longest_pair_tokens", data.longest},
                        {"cleaned_pairs", data.num_cleaned},
                        {"dropped_pairs", data.num_dropped}};
    add_estimate(json, estimate, seconds);
    std::cout << json.dump() << "\n";
    return;
  }
  std::cout << "pairs               " << num_pairs << ", the longest of " << data.longest
            << " tokens\n"
            << "steps               " << steps << "\n"
            << "tokens              " << static_cast<int64_t>(tokens) << " in all\n"
            << estimate_text(estimate, seconds);
}

void train_sft(const SftFlags& flags, train::RunOptions options, Context& context,
               train::Communicator& ranks) {
  train::Run run(std::move(options), run_hooks(context, ranks), ranks);
  train::SftDataOptions reading;
  reading.modes = flags.modes == "direct"  ? train::Modes::kDirect
                  : flags.modes == "think" ? train::Modes::kThink
                                           : train::Modes::kBoth;
  reading.soft = flags.targets == "soft";
  reading.clean = flags.clean;
  reading.rank = flags.rank_loss != "none";
  train::SftData data = train::read_sft_data(flags.data, run, reading);
  train::SftOptions sft = flags.sft;
  sft.seed = flags.shared.train.seed;
  sft.packing.max_tokens = flags.shared.max_pass_tokens;
  sft.packing.weighting =
      flags.weighting == "tokens" ? train::Weighting::kTokens : train::Weighting::kExamples;
  if (flags.rank_loss == "margin") sft.rank.kind = train::RankLoss::kMargin;
  if (flags.rank_loss == "softmax") sft.rank.kind = train::RankLoss::kSoftmax;
  sft.answers = std::move(data.answers);
  train::SftObjective objective(std::move(data.examples), sft, run.make_validation());
  if (flags.shared.dry_run) return dry_run(flags, run, objective, data);
  report_run(flags.shared, run, run.train(objective), objective.num_steps());
}

}  // namespace

void add_train_sft(CLI::App& train, Context& context) {
  auto* verb =
      train.add_subcommand("sft", "Supervised fine-tuning on a teacher's scores and reasoning");
  auto flags = std::make_shared<SftFlags>();
  verb->footer(kExample);
  const OptionAdder add{*verb};
  run_only(verb->add_option("--data", flags->data, "training pairs, JSON lines (docs/formats.md)"));
  flags->shared.add_to(*verb);
  add.option("--batch-size", flags->sft.batch_size, "pairs per step")
      ->check(CLI::Range(1, 1 << 20));
  add.option("--group-size", flags->sft.group_size,
             "pairs of one query in a group, which share its prompt's beginning")
      ->check(CLI::Range(1, 1 << 20));
  add.option("--epochs", flags->sft.epochs, "passes over the data; may be a fraction");
  add.option("--max-steps", flags->sft.max_steps, "most training steps; 0: no limit");
  add.choice("--weighting", flags->weighting, {"examples", "tokens"},
             "what weighs equally in the loss: every example, or every learned token");
  add.choice("--modes", flags->modes, {"both", "direct", "think"},
             "which answers a pair with reasoning trains: direct, think or both");
  add.choice("--targets", flags->targets, {"soft", "hard"},
             "learn the teacher's distribution where there is one (soft), or its integer (hard)");
  add.choice("--rank-loss", flags->rank_loss, {"none", "margin", "softmax"},
             "also compare the expected scores of a query's pairs with each other");
  add.option("--rank-weight", flags->sft.rank_weight, "weight of --rank-loss in the loss");
  add.option("--rank-temperature", flags->sft.rank.temperature,
             "--rank-loss softmax: scores are divided by it");
  verb->add_flag("--clean", flags->clean,
                 "take tags and chat markers out of reasoning, and drop pairs whose reasoning does "
                 "not lead to their answer");
  verb->callback([flags, verb, &context] {
    context.run = [flags, verb, &context] {
      with_ranks(context, [&](train::Communicator& ranks) {
        flags->shared.complete(*verb);
        train_sft(*flags, flags->shared.run_options(*verb, {{"data", flags->data}}), context,
                  ranks);
      });
    };
  });
}

}  // namespace erank::cli
