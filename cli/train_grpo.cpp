#include <iostream>

#include "cli/train_options.h"
#include "erank/base/error.h"
#include "erank/train/grpo.h"

namespace erank::cli {
namespace {

using base::OrderedJson;

struct GrpoFlags {
  TrainFlags shared;
  std::string candidates, qrels, reward = "rr", adv_std = "on";
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

// Steps, tokens and memory are counted, time is estimated from the GEMM peak.
void dry_run(const GrpoFlags& flags, train::Run& run, train::ExactObjective& objective,
             const train::RankedQueries& data) {
  const int64_t steps = objective.num_steps(), sample = std::min<int64_t>(steps, 20);
  double tokens = 0;
  for (int64_t step = 0; step < sample; ++step)
    tokens += static_cast<double>(objective.num_tokens(step));
  tokens *= static_cast<double>(steps) / static_cast<double>(sample);
  int64_t pairs = 0;
  for (const auto& query : objective.queries()) pairs += std::ssize(query.prompts);
  const auto num_queries = std::ssize(objective.queries());
  const auto estimate = run.estimate(objective, flags.shared.max_pass_tokens, data.longest);
  if (flags.shared.json) {
    OrderedJson json = {{"queries", num_queries},
                        {"left_out_queries", data.num_left_out},
                        {"pairs", pairs},
                        {"iterations", flags.grpo.iterations},
                        {"steps", steps},
                        {"tokens", static_cast<int64_t>(tokens)},
                        {"longest_pair_tokens", data.longest}};
    add_estimate(json, estimate, tokens);
    std::cout << json.dump() << "\n";
    return;
  }
  std::cout << "queries             " << num_queries << ", with " << pairs
            << " pairs, the longest of " << data.longest << " tokens\n"
            << "steps               " << steps << ", " << objective.steps_per_iteration()
            << " an iteration\n"
            << "tokens              " << static_cast<int64_t>(tokens) << " in all\n"
            << estimate_text(estimate, tokens);
}

void train_grpo(const GrpoFlags& flags, train::RunOptions options, Context& context) {
  train::Run run(std::move(options), run_hooks(context));
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
                                  .answer_tokens = 2,
                                  .seed = grpo.seed});
  if (data.num_left_out > 0)
    run.hooks().warn(base::str(flags.candidates, ": ", data.num_left_out,
                               " queries have no candidate graded ", grpo.reward.positive_grade,
                               " or more and are left out"));
  train::ExactObjective objective(std::move(data.queries), grpo, {run.tokenizer(), run.format()},
                                  run.make_validation());
  if (flags.shared.dry_run) return dry_run(flags, run, objective, data);
  report_run(flags.shared, run.train(objective), objective.num_steps());
}

}  // namespace

void add_train_grpo(CLI::App& train, Context& context) {
  auto* verb = train.add_subcommand(
      "grpo", "Reinforcement learning on how the documents of a query rank together");
  auto flags = std::make_shared<GrpoFlags>();
  verb->footer(kExample);
  const auto option = [&](const char* name, auto& value, const char* text) {
    return verb->add_option(name, value, text)->capture_default_str();
  };
  const auto choice = [&](const char* name, std::string& value, std::vector<std::string> allowed,
                          const char* text) {
    return option(name, value, text)->check(CLI::IsMember(std::move(allowed)));
  };
  run_only(verb->add_option("--candidates", flags->candidates,
                            "queries with candidates and their text, JSON lines"));
  run_only(verb->add_option("--qrels", flags->qrels, "judgements of --candidates"));
  flags->shared.add_to(*verb);
  auto& grpo = flags->grpo;
  choice("--reward", flags->reward, {"rr", "ndcg", "se"},
         "of an answer: its document's reciprocal rank (rr) or share of nDCG, or its squared error "
         "to the reference (se)");
  option("--iterations", grpo.iterations, "how often queries are drawn")
      ->check(CLI::Range(1, 1 << 30));
  option("--queries-per-iteration", grpo.queries_per_iteration, "queries of an iteration")
      ->check(CLI::Range(1, 1 << 30));
  option("--docs-per-query", flags->documents,
         "most documents of a query; of longer lists a mix of ranks is drawn")
      ->check(CLI::Range(2, 1 << 20));
  option("--mini-batch", grpo.mini_batch, "pairs of an optimiser step, by whole queries")
      ->check(CLI::Range(1, 1 << 30));
  option("--kl-coef", grpo.kl_coef, "weight of the KL to the model before training");
  option("--max-kl", grpo.max_kl, "stop when a step's KL is over this, in nats");
  choice("--adv-std", flags->adv_std, {"on", "off"},
         "divide advantages by the standard deviation of their group");
  option("--positive-grade", grpo.reward.positive_grade,
         "documents graded at least so are relevant")
      ->check(CLI::Range(1, 1 << 20));
  verb->callback([flags, verb, &context] {
    context.run = [flags, verb, &context] {
      flags->shared.complete(*verb);
      train_grpo(*flags,
                 flags->shared.run_options(
                     *verb, {{"candidates", flags->candidates}, {"qrels", flags->qrels}}),
                 context);
    };
  });
}

}  // namespace erank::cli
