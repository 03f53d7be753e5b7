#include <algorithm>
#include <charconv>
#include <cmath>
#include <iostream>
#include <optional>
#include <tuple>

#include "cli/progress_line.h"
#include "cli/ranks.h"
#include "cli/train_options.h"
#include "erank/base/error.h"
#include "erank/train/rollout_objective.h"

namespace erank::cli {
namespace {

using base::OrderedJson;

// The paper's, for every parameter; an adapter's is larger.
constexpr double kFullRate = 1e-6;
// Of samples, whose KL cannot pass 10.
constexpr double kSampledMaxKl = 5;

struct GrpoFlags {
  TrainFlags shared;
  std::string candidates, qrels, reference_scores;
  std::string reward = "rr", reward_scale = "none", reward_ties = "below", adv_std = "on";
  std::string rollouts = "exact", modes = "direct", clip = "0.2", loss_agg = "tokens";
  std::string ratio = "token", rollout_correction = "off", overlong = "mask";
  std::optional<double> min_entropy;
  int64_t documents = train::RankedQueriesOptions{}.documents;
  train::GrpoOptions grpo;

  GrpoFlags() {
    shared.train.schedule = {.peak = 1e-4, .warmup_ratio = 0, .floor_ratio = 0, .constant = true};
    shared.schedule = "constant";
    shared.train.adamw.weight_decay = 0.01;
    shared.train.validate_start = true;
  }

  // Defaults that depend on other options, after parsing.
  void complete(CLI::App& verb) {
    shared.complete(verb);
    const auto set = [&](const char* name, auto& value, const auto& wanted,
                         const std::string& text) {
      CLI::Option* option = verb.get_option(name);
      if (option->count() > 0) return;
      value = wanted;
      option->default_str(text);  // what train.toml says
    };
    if (shared.full) set("--learning-rate", shared.train.schedule.peak, kFullRate, "1e-06");
    if (rollouts != "exact") set("--max-kl", grpo.max_kl, kSampledMaxKl, "5");
    if (modes == "think") set("--validation-modes", shared.validation_modes, "think", "think");
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

constexpr double kSampledMinEntropy = 0.001;

// What a run will take at half of the GEMM peak, and its memory in bytes.
struct Plan {
  double learning_seconds = 0, sampling_seconds = 0, reference_seconds = 0;
  double logits_bytes = 0, serving_bytes = 0;

  double seconds() const { return learning_seconds + sampling_seconds + reference_seconds; }
};

// `work`: of all steps.
Plan plan_of(const GrpoFlags& flags, train::Run& run, const train::Estimate& estimate,
             const train::GrpoObjective::Work& work, int64_t reference_tokens, int64_t longest) {
  const auto real = [](int64_t n) { return static_cast<double>(n); };
  const auto& c = run.config();
  const bool full = flags.shared.full, bf16 = run.parameters().dtype() == at::kBFloat16;
  const double width = bf16 ? 2 : 4, head = real(c.vocab_size) * real(c.hidden_size);
  double weights = 0;  // of the linear layers but the head
  for (const auto& linear : run.parameters().linears())
    if (linear.name != "lm_head") weights += real(linear.linear->weight.numel());
  const double rate = 0.5 * estimate.gemm_peak;
  const auto forward_seconds = [&](int64_t tokens, int64_t rows) {
    return (2 * weights * real(tokens) + 2 * head * real(rows)) / rate;
  };
  Plan plan;
  plan.learning_seconds = real(work.learning_tokens) * estimate.seconds_per_token +
                          (full ? 6 : 4) * head * real(work.learning_rows) / rate;
  plan.reference_seconds = forward_seconds(work.reference_tokens, work.reference_rows) +
                           forward_seconds(reference_tokens, 0);
  if (work.sampling_tokens > 0)
    plan.sampling_seconds = forward_seconds(work.sampling_tokens, work.learning_rows);
  // Of samples a frozen head keeps a gradient of its input and some logits (head_log_probs.cpp);
  // else there are logits and their gradient in fp32, and both as the head computes them.
  const bool rounded = bf16 && !flags.shared.train.head_fp32;
  const double logits = real(work.pass_rows) * real(c.vocab_size);
  if (flags.rollouts != "exact" && !full && flags.shared.device == "cpu")
    plan.logits_bytes =
        (std::min(logits, 0x1p24) + real(work.pass_rows) * real(c.hidden_size)) * (rounded ? 2 : 4);
  else
    plan.logits_bytes = logits * (rounded ? 12 : 8);
  if (bf16 && !rounded) plan.logits_bytes += 4 * head;
  // The engine's own network, and what its cache may hold.
  const double cache_token = 2.0 * real(c.num_hidden_layers) * real(c.kv_size()) * width;
  plan.serving_bytes =
      real(estimate.weights_bytes) +
      std::min(real(int64_t{2} << 30),
               cache_token * real(engine::EngineOptions{}.max_sequences) * real(longest));
  return plan;
}

// Steps, tokens and memory are counted, time is estimated from the GEMM peak.
void dry_run(const GrpoFlags& flags, train::Run& run, train::GrpoObjective& objective,
             const train::RankedQueries& data) {
  const int64_t steps = objective.num_steps(), counted = std::min<int64_t>(steps, 20);
  train::GrpoObjective::Work work;
  for (int64_t step = 0; step < counted; ++step) work += objective.work(step);
  for (int64_t* sum : {&work.learning_tokens, &work.sampling_tokens, &work.reference_tokens,
                       &work.learning_rows, &work.reference_rows})
    *sum = std::llround(static_cast<double>(*sum) * static_cast<double>(steps) /
                        static_cast<double>(counted));
  int64_t pairs = 0;
  for (const auto& query : objective.queries()) pairs += std::ssize(query.prompts);
  const int64_t reference_tokens = objective.reference_tokens();
  const auto num_queries = std::ssize(objective.queries());
  const bool trained_on = run.parameters().adapter(train::kTrainedAdapter) != nullptr;
  const auto estimate = run.estimate(objective, flags.shared.max_pass_tokens, data.longest);
  // What the KL of samples is taken to: a copy of what is trained, but for a new adapter.
  int64_t reference_bytes = 0;
  if (flags.rollouts != "exact" && flags.grpo.kl_coef > 0)
    reference_bytes = flags.shared.full ? estimate.weights_bytes
                      : trained_on      ? 4 * estimate.trained_parameters
                                        : 0;
  const Plan plan = plan_of(flags, run, estimate, work, reference_tokens, data.longest);
  if (run.ranks().rank() > 0) return;
  if (flags.shared.json) {
    OrderedJson json = {{"queries", num_queries},
                        {"left_out_queries", data.num_left_out},
                        {"pairs", pairs},
                        {"iterations", flags.grpo.iterations},
                        {"steps", steps},
                        {"tokens", work.learning_tokens},
                        {"sampling_tokens", work.sampling_tokens},
                        {"reference_tokens", work.reference_tokens + reference_tokens},
                        {"longest_pair_tokens", data.longest}};
    add_estimate(json, estimate, plan.seconds());
    json["logits_bytes"] = std::llround(plan.logits_bytes);
    json["serving_bytes"] = std::llround(plan.serving_bytes);
    json["reference_bytes"] = reference_bytes;
    json["learning_seconds"] = plan.learning_seconds;
    json["sampling_seconds"] = plan.sampling_seconds;
    json["reference_seconds"] = plan.reference_seconds;
    std::cout << json.dump() << "\n";
    return;
  }
  std::cout << "queries             " << num_queries << ", with " << pairs
            << " pairs, the longest of " << data.longest << " tokens with its answer\n"
            << "steps               " << steps << ", " << objective.steps_per_iteration()
            << " an iteration\n"
            << "tokens              " << work.learning_tokens << " in all to learn from, up to "
            << work.sampling_tokens << " to sample, " << work.reference_tokens + reference_tokens
            << " for the reference\n"
            << estimate_text(
                   estimate, plan.seconds(),
                   base::str(" and ", gigabytes(plan.logits_bytes), " of logits, the engine up to ",
                             gigabytes(plan.serving_bytes), ", reference ",
                             gigabytes(static_cast<double>(reference_bytes))),
                   base::str(": learning ", duration_text(plan.learning_seconds), ", sampling ",
                             duration_text(plan.sampling_seconds), ", reference ",
                             duration_text(plan.reference_seconds)));
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
  if (flags.modes == "think") options.rollouts.modes = {rank::Mode::kThink};
  if (flags.modes == "both") options.rollouts.modes = {rank::Mode::kDirect, rank::Mode::kThink};
  options.rollouts.num_samples = num_samples;
  options.rollouts.max_think_tokens = flags.shared.max_think_tokens;
  auto& loss = options.loss;
  std::tie(loss.clip_low, loss.clip_high) = parse_clip(flags.clip);
  if (flags.loss_agg == "sequences") loss.aggregation = train::LossAggregation::kSequences;
  if (flags.loss_agg == "constant") loss.aggregation = train::LossAggregation::kConstant;
  loss.constant_length = flags.shared.max_think_tokens;
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
  const bool think = flags.modes != "direct";
  if (num_samples == 0 && think)
    base::fail(base::ErrorKind::kInvalidInput, "--rollouts",
               "exact is for direct answers; --modes ", flags.modes,
               " needs samples, e.g. --rollouts 6");
  if (flags.modes == "both" && (num_samples < 4 || num_samples % 2 != 0))
    base::fail(base::ErrorKind::kInvalidInput, "--rollouts", "is ", num_samples,
               "; with --modes both each mode has a half of them, expected an even number of 4 or "
               "more");
  train::GrpoOptions grpo = flags.grpo;
  for (const auto& [name, reward] : kRewards)
    if (name == flags.reward) grpo.reward.reward = reward;
  grpo.reward.scale_above = flags.reward_scale == "above" || flags.reward_scale == "both";
  grpo.reward.scale_otherwise = flags.reward_scale == "otherwise" || flags.reward_scale == "both";
  grpo.reward.ties_above = flags.reward_ties == "above";
  grpo.min_entropy = flags.min_entropy.value_or(num_samples == 0 ? 0 : kSampledMinEntropy);
  train::check(grpo);
  grpo.divide_by_std = flags.adv_std == "on";
  grpo.seed = flags.shared.train.seed;
  grpo.max_pass_tokens = flags.shared.max_pass_tokens;
  train::Run run(std::move(options), run_hooks(context, ranks), ranks);
  train::RankedQueries data =
      train::read_ranked_queries(flags.candidates, flags.qrels, run,
                                 {.documents = flags.documents,
                                  .positive_grade = grpo.reward.positive_grade,
                                  .answer_tokens = think ? flags.shared.max_think_tokens + 2 : 2,
                                  .seed = grpo.seed,
                                  .reference_scores = flags.reference_scores});
  if (data.num_left_out > 0)
    run.hooks().warn(base::str(flags.candidates, ": ", data.num_left_out,
                               " queries have no candidate graded ", grpo.reward.positive_grade,
                               " or more and are left out"));
  const train::ModelFormat format{run.tokenizer(), run.format()};
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
  run_only(verb->add_option("--reference-scores", flags->reference_scores,
                            "scores to compare answers with, JSON lines of `erank rerank` "
                            "(default: what the model answers before training)"));
  flags->shared.add_to(*verb);
  auto& grpo = flags->grpo;
  add.choice(
      "--reward", flags->reward, {"rr", "ndcg", "se"},
      "of an answer: its document's reciprocal rank (rr) or share of nDCG, or its squared error "
      "to the reference (se)");
  add.choice("--reward-scale", flags->reward_scale, {"none", "above", "otherwise", "both"},
             "scale by the relevant documents' ranks the rewards of others that are ranked above a "
             "relevant one, of those that are not, or of both");
  add.choice("--reward-ties", flags->reward_ties, {"below", "above"},
             "where one that is not relevant ties with a relevant one: below it, as the paper's "
             "ranks have it, or above it, so that one score for all earns nothing");
  add.option("--rollouts", flags->rollouts,
             "samples of each pair, or exact: direct answers, their expectation without sampling");
  add.choice("--modes", flags->modes, {"direct", "think", "both"},
             "what is sampled: direct answers, reasoning and answer, or half of each");
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
  add.option("--max-kl", grpo.max_kl,
             "stop when a step's KL is over this, in nats a token (exact: a document); of samples "
             "the default is 5, and it is measured only with a --kl-coef over 0");
  verb->add_option("--min-entropy", flags->min_entropy,
                   "stop when the entropy is under this for five iterations, in nats a token "
                   "(exact: a document); 0: never (default: 0.001, with --rollouts exact 0)");
  verb->add_flag("--head-fp32", flags->shared.train.head_fp32,
                 "with bf16: learn from logits that the head computes in fp32");
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
        flags->complete(*verb);
        std::vector<std::pair<std::string, std::string>> data = {{"candidates", flags->candidates},
                                                                 {"qrels", flags->qrels}};
        if (!flags->reference_scores.empty())
          data.emplace_back("reference-scores", flags->reference_scores);
        train_grpo(*flags, flags->shared.run_options(*verb, std::move(data)), context, ranks);
      });
    };
  });
}

}  // namespace erank::cli
