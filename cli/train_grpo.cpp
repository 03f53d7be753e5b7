#include <charconv>
#include <iostream>
#include <tuple>

#include "cli/ranks.h"
#include "cli/train_options.h"
#include "erank/base/error.h"
#include "erank/train/rollout_objective.h"

namespace erank::cli {
namespace {

using base::OrderedJson;

struct GrpoFlags {
  TrainFlags shared;
  std::string candidates, qrels, reward = "rr", adv_std = "on";
  std::string rollouts = "exact", modes = "direct", clip = "0.2", loss_agg = "tokens";
  std::string ratio = "token", rollout_correction = "off", overlong = "mask";
  int max_think_tokens = train::RolloutOptions{}.max_think_tokens;
  int64_t documents = train::RankedQueriesOptions{}.documents;
  train::GrpoOptions grpo;

  GrpoFlags() {
    shared.train.schedule = {.peak = 1e-4, .warmup_ratio = 0, .floor_ratio = 0, .constant = true};
    shared.schedule = "constant";
    shared.train.adamw.weight_decay = 0.01;
  }
};

constexpr const char* kExample =
    "Examples:\n"
    "  erank train grpo --model run1 --candidates train.jsonl --qrels train.qrels --out run2 "
    "--dry-run\n"
    "  erank train grpo --model run1 --candidates train.jsonl --qrels train.qrels --out run2 "
    "--validation dev.jsonl --validation-qrels dev.qrels --validate-steps 20\n"
    "  erank train plot run2 --out curves.html";

const std::vector<std::pair<std::string, train::Reward>> kRewards = {
    {"rr", train::Reward::kRr}, {"ndcg", train::Reward::kNdcg}, {"se", train::Reward::kSe}};

// What a run will take. Sampling and learning are told apart.
struct Plan {
  int64_t pairs = 0;
  double learning_tokens = 0, sampling_tokens = 0;  // through the network, all steps
};

// Steps, tokens and memory are counted, time is estimated from the GEMM peak: a forward pass is a
// third of a step's arithmetic.
void dry_run(const GrpoFlags& flags, train::Run& run, train::GrpoObjective& objective,
             const train::RankedQueries& data) {
  const int64_t steps = objective.num_steps(), sample = std::min<int64_t>(steps, 20);
  Plan plan;
  for (int64_t step = 0; step < sample; ++step)
    plan.learning_tokens += static_cast<double>(objective.num_tokens(step)) *
                            static_cast<double>(steps) / static_cast<double>(sample);
  for (const auto& query : objective.queries()) plan.pairs += std::ssize(query.prompts);
  if (flags.rollouts != "exact") plan.sampling_tokens = plan.learning_tokens;
  const double tokens = plan.learning_tokens + plan.sampling_tokens / 3;
  const auto num_queries = std::ssize(objective.queries());
  const auto estimate = run.estimate(objective, flags.shared.max_pass_tokens, data.longest);
  if (run.ranks().rank() > 0) return;
  if (flags.shared.json) {
    OrderedJson json = {{"queries", num_queries},
                        {"left_out_queries", data.num_left_out},
                        {"pairs", plan.pairs},
                        {"iterations", flags.grpo.iterations},
                        {"steps", steps},
                        {"tokens", static_cast<int64_t>(plan.learning_tokens)},
                        {"sampling_tokens", static_cast<int64_t>(plan.sampling_tokens)},
                        {"longest_pair_tokens", data.longest}};
    add_estimate(json, estimate, tokens);
    std::cout << json.dump() << "\n";
    return;
  }
  std::cout << "queries             " << num_queries << ", with " << plan.pairs
            << " pairs, the longest of " << data.longest << " tokens with its answer\n"
            << "steps               " << steps << ", " << objective.steps_per_iteration()
            << " an iteration\n"
            << "tokens              " << static_cast<int64_t>(plan.learning_tokens)
            << " in all to learn from, " << static_cast<int64_t>(plan.sampling_tokens)
            << " to sample\n"
            << estimate_text(estimate, tokens);
}

// "0.2" or "0.2,0.28".
std::pair<double, double> parse_clip(const std::string& text) {
  const size_t comma = text.find(',');
  const auto number = [&](const std::string& part) {
    size_t used = 0;
    double value = -1;
    try {
      value = std::stod(part, &used);
    } catch (const std::exception&) {
    }
    if (used == 0 || used != part.size() || !(value >= 0 && value <= 1))
      base::fail(base::ErrorKind::kInvalidInput, "--clip", "is ", text,
                 ", expected LOW or LOW,HIGH, each a number from 0 to 1");
    return value;
  };
  const double low = number(text.substr(0, comma));
  return {low, comma == text.npos ? low : number(text.substr(comma + 1))};
}

// The number of rollouts a pair; 0: exact.
int parse_rollouts(const std::string& text) {
  if (text == "exact") return 0;
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 2 || value > 1024)
    base::fail(base::ErrorKind::kInvalidInput, "--rollouts", "is ", text,
               ", expected exact, or the samples of a pair, 2 to 1024");
  return value;
}

train::RolloutObjectiveOptions rollout_options(const GrpoFlags& flags, int num_samples) {
  train::RolloutObjectiveOptions options;
  if (flags.modes == "think") options.rollouts.mode = rank::Mode::kThink;
  options.rollouts.num_samples = num_samples;
  options.rollouts.max_think_tokens = flags.max_think_tokens;
  auto& loss = options.loss;
  std::tie(loss.clip_low, loss.clip_high) = parse_clip(flags.clip);
  if (flags.loss_agg == "sequences") loss.aggregation = train::LossAggregation::kSequences;
  if (flags.loss_agg == "constant") loss.aggregation = train::LossAggregation::kConstant;
  loss.constant_length = flags.max_think_tokens;
  if (flags.ratio == "sequence") loss.ratio = train::RatioKind::kSequence;
  if (flags.ratio == "cispo") loss.ratio = train::RatioKind::kCispo;
  loss.rollout_correction = flags.rollout_correction == "token";
  if (flags.overlong == "penalty") loss.overlong = train::Overlong::kPenalty;
  return options;
}

void train_grpo(const GrpoFlags& flags, train::RunOptions options, Context& context,
                train::Communicator& ranks) {
  const int num_samples = parse_rollouts(flags.rollouts);
  const auto sampled = rollout_options(flags, num_samples);
  train::check(flags.grpo);
  const bool think = flags.modes == "think";
  if (num_samples == 0 && think)
    base::fail(base::ErrorKind::kInvalidInput, "--rollouts",
               "exact is for direct answers; --modes think needs samples, e.g. --rollouts 5");
  train::Run run(std::move(options), run_hooks(context, ranks), ranks);
  train::GrpoOptions grpo = flags.grpo;
  for (const auto& [name, reward] : kRewards)
    if (name == flags.reward) grpo.reward.reward = reward;
  grpo.divide_by_std = flags.adv_std == "on";
  grpo.seed = flags.shared.train.seed;
  grpo.max_pass_tokens = flags.shared.max_pass_tokens;
  train::RankedQueries data =
      train::read_ranked_queries(flags.candidates, flags.qrels, run,
                                 {.documents = flags.documents,
                                  .positive_grade = grpo.reward.positive_grade,
                                  .answer_tokens = think ? flags.max_think_tokens + 2 : 2,
                                  .seed = grpo.seed});
  if (data.num_left_out > 0)
    run.hooks().warn(base::str(flags.candidates, ": ", data.num_left_out,
                               " queries have no candidate graded ", grpo.reward.positive_grade,
                               " or more and are left out"));
  const train::GrpoFormat format{run.tokenizer(), run.format()};
  const auto carry_out = [&](train::GrpoObjective& objective) {
    if (flags.shared.dry_run) return dry_run(flags, run, objective, data);
    report_run(flags.shared, run, run.train(objective), objective.num_steps());
  };
  if (num_samples == 0) {
    train::ExactObjective objective(std::move(data.queries), grpo, format, run.make_validation());
    return carry_out(objective);
  }
  train::RolloutObjective objective(std::move(data.queries), grpo, sampled, format,
                                    run.make_validation());
  if (!flags.shared.dry_run) objective.freeze_reference(run.parameters(), flags.shared.full);
  carry_out(objective);
}

}  // namespace

void add_train_grpo(CLI::App& train, Context& context) {
  auto* verb = train.add_subcommand(
      "grpo", "Reinforcement learning on how the documents of a query rank together");
  auto flags = std::make_shared<GrpoFlags>();
  verb->footer(kExample);
  const OptionAdder add{*verb};
  run_only(verb->add_option("--candidates", flags->candidates,
                            "queries with candidates and their text, JSON lines"));
  run_only(verb->add_option("--qrels", flags->qrels, "judgements of --candidates"));
  flags->shared.add_to(*verb);
  auto& grpo = flags->grpo;
  add.choice(
      "--reward", flags->reward, {"rr", "ndcg", "se"},
      "of an answer: its document's reciprocal rank (rr) or share of nDCG, or its squared error "
      "to the reference (se)");
  add.option("--rollouts", flags->rollouts,
             "samples of each pair, or exact: direct answers, their expectation without sampling");
  add.choice("--modes", flags->modes, {"direct", "think"},
             "what is sampled: direct answers, or reasoning and answer");
  add.option("--max-think-tokens", flags->max_think_tokens,
             "most tokens of a sample in --modes think, reasoning and answer")
      ->check(CLI::Range(1, 1 << 20));
  add.option("--iterations", grpo.iterations, "how often queries are drawn")
      ->check(CLI::Range(1, 1 << 30));
  add.option("--queries-per-iteration", grpo.queries_per_iteration, "queries of an iteration")
      ->check(CLI::Range(1, 1 << 30));
  add.option("--docs-per-query", flags->documents,
             "most documents of a query; of longer lists a mix of ranks is drawn")
      ->check(CLI::Range(2, 1 << 20));
  add.option("--mini-batch", grpo.mini_batch, "pairs of an optimiser step, by whole queries")
      ->check(CLI::Range(1, 1 << 30));
  add.option("--kl-coef", grpo.kl_coef, "weight of the KL to the model before training");
  add.option("--max-kl", grpo.max_kl, "stop when a step's KL is over this, in nats");
  add.choice("--adv-std", flags->adv_std, {"on", "off"},
             "divide advantages by the standard deviation of their group");
  add.option("--positive-grade", grpo.reward.positive_grade,
             "documents graded at least so are relevant")
      ->check(CLI::Range(1, 1 << 20));
  add.choice(
      "--loss-agg", flags->loss_agg, {"tokens", "sequences", "constant"},
      "samples: the loss is a mean over tokens, over samples of their means, or over samples of "
      "their sums divided by --max-think-tokens");
  add.choice("--ratio", flags->ratio, {"token", "sequence", "cispo"},
             "samples: what is clipped, a token's ratio, a sample's (GSPO), or the weight (CISPO)");
  add.option("--clip", flags->clip, "samples: ratios stay in 1 - LOW to 1 + HIGH; LOW[,HIGH]");
  add.choice("--rollout-correction", flags->rollout_correction, {"off", "token"},
             "samples: weigh tokens by the trainer's own probability over the engine's");
  add.choice("--overlong", flags->overlong, {"mask", "penalty"},
             "samples that were cut at --max-think-tokens: teach nothing, or that they are bad");
  verb->callback([flags, verb, &context] {
    context.run = [flags, verb, &context] {
      with_ranks(context, [&](train::Communicator& ranks) {
        flags->shared.complete(*verb);
        train_grpo(*flags,
                   flags->shared.run_options(
                       *verb, {{"candidates", flags->candidates}, {"qrels", flags->qrels}}),
                   context, ranks);
      });
    };
  });
}

}  // namespace erank::cli
