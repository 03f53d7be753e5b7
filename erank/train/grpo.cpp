#include "erank/train/grpo.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/model/tensor_file.h"
#include "erank/train/check_range.h"
#include "erank/train/log_probs.h"
#include "erank/train/loss.h"
#include "erank/train/packing.h"

namespace erank::train {
namespace {

// A judgement for each document, so that each query has one.
data::Qrels qrels_of(const std::vector<RankedQuery>& queries) {
  data::Qrels qrels;
  for (const RankedQuery& query : queries) {
    qrels.qids.push_back(query.qid);
    auto& grades = qrels.grades[query.qid];
    for (size_t i = 0; i < query.docids.size(); ++i) grades[query.docids[i]] = query.grades[i];
  }
  return qrels;
}

// Smaller ones count as this, so that their logarithms are finite.
constexpr double kLeastProbability = 1e-30;

}  // namespace

void check(const GrpoOptions& options) {
  check_range("--iterations", static_cast<double>(options.iterations), 1, 1 << 30);
  check_range("--queries-per-iteration", static_cast<double>(options.queries_per_iteration), 1,
              1 << 30);
  check_range("--mini-batch", static_cast<double>(options.mini_batch), 1, 1 << 30);
  check_range("--kl-coef", options.kl_coef, 0, 1e6);
  check_range("--max-kl", options.max_kl, 1e-9, 1e9);
  check_range("--min-entropy", options.min_entropy, 0, 1e9);
}

GrpoObjective::Work& GrpoObjective::Work::operator+=(const Work& other) {
  learning_tokens += other.learning_tokens, sampling_tokens += other.sampling_tokens;
  reference_tokens += other.reference_tokens;
  learning_rows += other.learning_rows, reference_rows += other.reference_rows;
  pass_rows = std::max(pass_rows, other.pass_rows);
  return *this;
}

GrpoObjective::GrpoObjective(std::vector<RankedQuery> queries, const GrpoOptions& options,
                             Asked asked, ModelFormat format,
                             std::unique_ptr<RankingValidation> validation)
    : queries_(std::move(queries)),
      options_(options),
      format_(format),
      reader_(format.tokenizer, format.format.options().scale),
      validation_(std::move(validation)),
      serving_(validation_ ? validation_->serving() : std::make_shared<Serving>()),
      asked_(std::move(asked)),
      qrels_(qrels_of(queries_)),
      low_entropy_steps_(at::zeros({1})) {
  check(options_);
  ERANK_CHECK(!queries_.empty());
  const auto count = std::ssize(queries_);
  options_.queries_per_iteration = std::min(options_.queries_per_iteration, count);
  iterations_per_epoch_ = count / options_.queries_per_iteration;
  size_t pairs = 0;
  for (const RankedQuery& query : queries_) {
    ERANK_CHECK(!query.prompts.empty());
    first_pair_.push_back(pairs);
    pairs += query.prompts.size();
  }
  const double per_iteration = static_cast<double>(pairs) / static_cast<double>(count) *
                               static_cast<double>(options_.queries_per_iteration);
  steps_per_iteration_ =
      std::clamp<int64_t>(std::llround(per_iteration / static_cast<double>(options_.mini_batch)), 1,
                          options_.queries_per_iteration);
  const auto m = std::ssize(modes()), n = static_cast<int64_t>(pairs);
  reference_scores_ = at::zeros({m * n});
  reference_answers_ = at::zeros({m * n, std::ssize(reader_.choices())});
  if (!given_scores()) return;
  std::vector<double> scores;
  for (const RankedQuery& query : queries_) {
    ERANK_CHECK(query.reference.size() == query.prompts.size());
    scores.insert(scores.end(), query.reference.begin(), query.reference.end());
  }
  reference_scores_.copy_(at::tensor(scores).repeat({m}));
}

std::vector<size_t> GrpoObjective::queries_of(int64_t iteration) const {
  std::vector<size_t> order(queries_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  base::Random random(
      base::derived_seed(options_.seed, static_cast<uint64_t>(iteration / iterations_per_epoch_)));
  base::shuffle(order, random);
  const auto first =
      order.begin() + iteration % iterations_per_epoch_ * options_.queries_per_iteration;
  return {first, first + options_.queries_per_iteration};
}

// A mini batch ends with the query that brings it nearest to its share of pairs.
std::vector<size_t> GrpoObjective::mini_batch(int64_t step) const {
  const auto all = queries_of(step / steps_per_iteration_);
  const auto pairs_of = [&](size_t query) { return queries_[query].prompts.size(); };
  size_t total = 0;
  for (const size_t query : all) total += pairs_of(query);
  const auto count = static_cast<size_t>(steps_per_iteration_);
  const auto wanted = static_cast<size_t>(step % steps_per_iteration_);
  size_t begin = 0, end = 0, taken = 0;
  for (size_t i = 0; i <= wanted; ++i) {
    begin = end;
    const size_t last = all.size() - (count - 1 - i), share = total * (i + 1) / count;
    do taken += pairs_of(all[end++]);
    while (end < last && (i + 1 == count || taken + pairs_of(all[end]) / 2 < share));
  }
  return {all.begin() + static_cast<int64_t>(begin), all.begin() + static_cast<int64_t>(end)};
}

std::vector<size_t> GrpoObjective::own_of(const std::vector<size_t>& queries,
                                          const Communicator& ranks) const {
  std::vector<int64_t> costs;
  for (const size_t query : queries) costs.push_back(count_tokens(queries_[query].prompts));
  std::vector<size_t> own;
  for (const size_t i : own_share(costs, ranks)) own.push_back(queries[i]);
  return own;
}

std::vector<size_t> GrpoObjective::drawn_queries() const {
  std::set<size_t> drawn;
  for (int64_t i = 0; i < options_.iterations && drawn.size() < queries_.size(); ++i)
    for (const size_t query : queries_of(i)) drawn.insert(query);
  return {drawn.begin(), drawn.end()};
}

int64_t GrpoObjective::reference_tokens() const {
  if (given_scores() && !asked_.answers) return 0;
  int64_t tokens = 0;
  for (const size_t query : drawn_queries()) {
    std::vector<Example> examples;
    for (const text::Ids& prompt : queries_[query].prompts) {
      Example& example = examples.emplace_back(Example{queries_[query].qid, prompt, {}});
      for (const rank::Mode mode : modes()) {
        Branch branch{format_.context_close(mode), {}};
        branch.ids.resize(branch.ids.size() +
                          (mode == rank::Mode::kThink ? max_think_tokens() : answer_tokens() - 1));
        example.branches.push_back(std::move(branch));
      }
    }
    for (const MicroBatch& pass : pack(groups_by_query(examples), {})) tokens += pass.num_tokens;
  }
  return tokens;
}

Preparation GrpoObjective::prepare_reference(const TrainedModel& model, int64_t step,
                                             const WorkControl& control) {
  if (has_reference_)
    return {.figures = step == 0 ? reference_figures(drawn_queries()) : Figures{}};
  ERANK_CHECK(step == 0, "no reference after the first step");
  const std::vector<size_t> drawn = drawn_queries();
  if (!given_scores() || asked_.answers) {
    serving_->load(model.parameters);
    const std::vector<size_t> own = own_of(drawn, model.ranks);
    int64_t total = 0, done = 0;
    for (const size_t query : own) total += std::ssize(queries_[query].prompts);
    total *= std::ssize(modes());
    const auto on_pair = [&] {
      ++done;
      if (control.progress) control.progress->update({"reference", done, total, "pairs", ""});
    };
    bool stopped = false;
    for (size_t mode = 0; mode < modes().size() && !stopped; ++mode)
      for (size_t i = 0; i < own.size() && !stopped;) {
        const size_t asked = ask_reference(std::span(own).subspan(i), mode, on_pair, control.stop);
        stopped = asked == 0, i += asked;
      }
    if (any(model.ranks, stopped)) {
      reference_answers_.zero_();
      if (!given_scores()) reference_scores_.zero_();
      return {.complete = false};
    }
    // What another rank has asked is 0 until all are added up.
    if (!given_scores()) model.ranks.all_reduce(reference_scores_);
    model.ranks.all_reduce(reference_answers_);
  }
  has_reference_ = true;
  return {.figures = reference_figures(drawn)};
}

// By the expected scores of the reference's answers; where it was not asked, by those given.
Figures GrpoObjective::reference_figures(const std::vector<size_t>& drawn) const {
  const bool answers = !given_scores() || asked_.answers;
  Figures figures;
  for (size_t mode = 0; mode < modes().size(); ++mode) {
    std::vector<std::vector<double>> scores;
    for (const size_t query : drawn) {
      auto& of_query = scores.emplace_back();
      for (int64_t i = 0; i < std::ssize(queries_[query].prompts); ++i) {
        const int64_t row = reference_row(query, mode) + i;
        if (!answers) {
          of_query.push_back(reference_scores_.const_data_ptr<float>()[row]);
          continue;
        }
        const int64_t num_answers = reference_answers_.size(1);
        const float* logs = reference_answers_.const_data_ptr<float>() + row * num_answers;
        text::ScoreDistribution answer;
        answer.scale = scale();
        for (int64_t k = 0; k < num_answers; ++k)
          answer.p[k] = std::exp(static_cast<double>(logs[k]));
        of_query.push_back(answer.expected());
      }
    }
    figures.emplace_back(name_of("reference_ndcg_10", mode), ndcg_10(drawn, std::move(scores)));
  }
  return figures;
}

// Asks about the first of the queries, or about as many as give enough reasoning to be written at a
// time -> how many; 0: stopped.
size_t GrpoObjective::ask_reference(std::span<const size_t> queries, size_t mode,
                                    const std::function<void()>& on_pair,
                                    const std::function<bool()>& stop) {
  constexpr size_t kPairsTogether = 256;
  std::vector<text::Ids> prompts;
  size_t count = 0;
  do {
    const auto& of_query = queries_[queries[count++]].prompts;
    prompts.insert(prompts.end(), of_query.begin(), of_query.end());
  } while (count < queries.size() && modes()[mode] == rank::Mode::kThink &&
           prompts.size() < kPairsTogether);
  const auto answers =
      serving_->answers(prompts, format_, modes()[mode], max_think_tokens(), on_pair, stop);
  if (answers.empty()) return 0;
  auto answer = answers.begin();
  for (const size_t query : queries.first(count))
    for (size_t i = 0; i < queries_[query].prompts.size(); ++i, ++answer) {
      const int64_t row = reference_row(query, mode) + static_cast<int64_t>(i);
      if (!given_scores()) reference_scores_[row] = static_cast<double>(answer->greedy());
      for (int64_t k = 0; k < reference_answers_.size(1); ++k)
        reference_answers_[row][k] = std::log(std::max(answer->p[k], kLeastProbability));
    }
  return count;
}

int64_t GrpoObjective::reference_row(size_t query, size_t mode) const {
  const int64_t pairs = reference_scores_.numel() / std::ssize(modes());
  return static_cast<int64_t>(mode) * pairs + static_cast<int64_t>(first_pair_[query]);
}

RewardTable GrpoObjective::reward_table(size_t query, size_t mode, int64_t num_rollouts) const {
  const RankedQuery& q = queries_[query];
  const float* scores = reference_scores_.const_data_ptr<float>() + reference_row(query, mode);
  const std::vector<double> reference(scores, scores + q.prompts.size());
  return {q.grades, reference, num_rollouts, options_.reward, scale()};
}

std::string GrpoObjective::name_of(const std::string& figure, size_t mode) const {
  return modes().size() == 1 ? figure : figure + "_" + mode_name(modes()[mode]);
}

std::vector<model::NamedTensor> GrpoObjective::state_tensors() const {
  return {{"reference.scores", reference_scores_},
          {"reference.answers", reference_answers_},
          {"low_entropy_steps", low_entropy_steps_}};
}

bool GrpoObjective::save_tensors(const std::string& path, int64_t step,
                                 const std::vector<model::NamedTensor>& more) const {
  if (!has_reference_ || step >= num_steps()) return false;
  auto tensors = state_tensors();
  tensors.insert(tensors.end(), more.begin(), more.end());
  model::save_tensors(path, tensors, at::kFloat);
  return true;
}

std::string GrpoObjective::reason_to_halt(double mean_kl, double entropy) {
  if (mean_kl > options_.max_kl)
    return base::str("the KL to the reference is ", mean_kl, ", over --max-kl ", options_.max_kl,
                     "; a smaller --learning-rate or a larger --kl-coef may help");
  if (options_.min_entropy > 0 && entropy < options_.min_entropy)
    low_entropy_steps_.add_(1);
  else
    low_entropy_steps_.zero_();
  if (low_entropy_steps_.item<int64_t>() >= kLowEntropyIterations * steps_per_iteration_)
    return base::str("the entropy is ", entropy, ", for ", kLowEntropyIterations,
                     " iterations under --min-entropy ", options_.min_entropy,
                     ": answers hardly differ any more and teach nothing; a smaller "
                     "--learning-rate or a larger --kl-coef may help");
  return "";
}

std::string GrpoObjective::unformatted_reason() {
  return "no answer is formatted, so that nothing can be learned; train with `erank train sft` "
         "first";
}

double GrpoObjective::ndcg_10(const std::vector<size_t>& queries,
                              std::vector<std::vector<double>> scores) const {
  if (queries.empty()) return 0;  // a rank that has none
  std::vector<ScoredList> lists;
  for (size_t i = 0; i < queries.size(); ++i)
    lists.push_back({queries_[queries[i]].qid, queries_[queries[i]].docids, std::move(scores[i])});
  return mean_ndcg_10(qrels_, lists);
}

std::optional<Figures> GrpoObjective::validate(const TrainedModel& model,
                                               const WorkControl& control) {
  if (!validation_) return Figures{};
  return validation_->measure(model.parameters, control, model.ranks);
}

ExactObjective::ExactObjective(std::vector<RankedQuery> queries, const GrpoOptions& options,
                               ModelFormat format, std::unique_ptr<RankingValidation> validation)
    : GrpoObjective(std::move(queries), options, {.modes = {rank::Mode::kDirect}, .answers = true},
                    format, std::move(validation)) {}

// A mini batch: an example a pair, with a term at each row where its answer is read.
struct ExactObjective::Batch {
  std::vector<size_t> queries;
  std::vector<std::pair<size_t, size_t>> pairs;  // of each example: place in queries, document
  std::vector<Example> examples;
  std::vector<MicroBatch> passes;

  size_t number(const Example* example) const { return example - examples.data(); }
  // Whether the pass has no query in part.
  bool has_whole_queries(const MicroBatch& pass) const {
    std::vector<size_t> sizes(queries.size(), 0);
    for (const auto& [q, document] : pairs) ++sizes[q];
    std::vector<size_t> here(queries.size(), 0);
    for (const Example* example : pass.examples) ++here[pairs[number(example)].first];
    for (size_t q = 0; q < here.size(); ++q)
      if (here[q] > 0 && here[q] < sizes[q]) return false;
    return true;
  }
};

ExactObjective::Batch ExactObjective::make_batch(std::vector<size_t> queries) const {
  Batch batch;
  batch.queries = std::move(queries);
  const int32_t zero = reader_.choices()[0].front();
  Branch branch{format_.format.direct_close(), {}};
  const auto row = static_cast<int32_t>(branch.ids.size());
  branch.terms.push_back({row, zero});
  if (answer_tokens() > 1) {
    branch.ids.push_back(reader_.choices()[1].front());
    branch.terms.push_back({row + 1, zero});
  }
  for (size_t q = 0; q < batch.queries.size(); ++q) {
    const RankedQuery& query = queries_[batch.queries[q]];
    for (size_t i = 0; i < query.prompts.size(); ++i) {
      batch.pairs.emplace_back(q, i);
      batch.examples.push_back({query.qid, query.prompts[i], {branch}});
    }
  }
  batch.passes = pack(groups_by_query(batch.examples), {.max_tokens = options_.max_pass_tokens});
  return batch;
}

GrpoObjective::Work ExactObjective::work(int64_t step) const {
  const Batch batch = make_batch(mini_batch(step));
  Work work;
  for (const MicroBatch& pass : batch.passes) {
    const auto rows = std::ssize(pass.batch.rows);
    work += {.learning_tokens = pass.num_tokens, .learning_rows = rows, .pass_rows = rows};
    if (!batch.has_whole_queries(pass))
      work += {.reference_tokens = pass.num_tokens, .reference_rows = rows};
  }
  return work;
}

Preparation ExactObjective::prepare(const TrainedModel& model, int64_t step,
                                    const WorkControl& control) {
  return prepare_reference(model, step, control);
}

// A query whose documents are in one pass needs no other: its rewards come from the forward pass
// whose gradient is taken. Of a query that is spread over several the policies are computed first.
StepStats ExactObjective::accumulate(const TrainedModel& model, int64_t step,
                                     const std::function<void(const at::Tensor&)>& backward) {
  model.forward.set_training(false);  // dropout would make another policy
  const Batch batch = make_batch(own_of(mini_batch(step), model.ranks));
  const size_t num_documents = batch.examples.size();
  int64_t num_of_step = 0;
  for (const size_t query : mini_batch(step)) num_of_step += std::ssize(queries_[query].prompts);
  std::vector<Outcomes> policies(num_documents), advantages(num_documents);
  std::vector<double> rewards(num_documents);
  StepStats stats;
  stats.num_examples = stats.num_learned = num_of_step;
  std::vector<size_t> first(batch.queries.size() + 1, num_documents);
  for (size_t e = num_documents; e-- > 0;) first[batch.pairs[e].first] = e;
  int64_t num_flat = 0;
  std::vector<size_t> known(batch.queries.size(), 0);  // policies
  const auto finish_query = [&](size_t q) {
    const size_t n = first[q + 1] - first[q];
    const std::span<const Outcomes> of_query(policies.data() + first[q], n);
    const auto expected = expected_rewards(reward_table(batch.queries[q], 0, 1), of_query);
    const auto exact = exact_advantages(expected, of_query, options_.divide_by_std);
    std::copy(exact.values.begin(), exact.values.end(), advantages.begin() + first[q]);
    std::copy(exact.rewards.begin(), exact.rewards.end(), rewards.begin() + first[q]);
    num_flat += exact.num_flat;
  };
  const auto answers_of = [&](const MicroBatch& pass) {
    AnswerRows rows;
    for (const text::Ids& choice : reader_.choices())
      if (choice.size() == 1) rows.tokens.push_back(choice.front());
    for (size_t i = 0; i < pass.terms.size();) {
      rows.first.push_back(pass.terms[i++].row);
      if (answer_tokens() > 1) rows.after_one.push_back(pass.terms[i++].row);
    }
    stats.num_tokens += pass.num_tokens;
    stats.num_rows += std::ssize(pass.batch.rows);
    return answer_log_probs(model.forward.forward(pass.batch), rows);
  };
  const auto learn_policies = [&](const MicroBatch& pass, const at::Tensor& answers) {
    const at::Tensor p = answers.detach().to(at::kCPU, at::kDouble).exp();
    const double* values = p.const_data_ptr<double>();
    const auto num_answers = static_cast<size_t>(p.size(1));
    for (size_t i = 0; i < pass.examples.size(); ++i) {
      const size_t e = batch.number(pass.examples[i]), q = batch.pairs[e].first;
      if (known[q] == first[q + 1] - first[q]) continue;
      policies[e] = outcomes_of(std::span(values + i * num_answers, num_answers));
      if (++known[q] == first[q + 1] - first[q]) finish_query(q);
    }
  };
  for (const MicroBatch& pass : batch.passes) {
    if (batch.has_whole_queries(pass)) continue;
    const at::NoGradGuard no_grad;
    learn_policies(pass, answers_of(pass));
  }
  int64_t needed = 0;
  for (const MicroBatch& pass : batch.passes) needed += pass.num_tokens;
  PolicyFigures figures;
  DeviceSum loss_sum, entropy_sum, kl_sum;
  for (const MicroBatch& pass : batch.passes) {
    const at::Tensor answers = answers_of(pass);
    learn_policies(pass, answers);
    std::vector<Outcomes> of_pass;
    std::vector<int64_t> pairs;
    for (const Example* example : pass.examples) {
      const size_t e = batch.number(example);
      of_pass.push_back(advantages[e]);
      pairs.push_back(static_cast<int64_t>(first_pair(batch.queries[batch.pairs[e].first]) +
                                           batch.pairs[e].second));
    }
    const at::Tensor reference =
        reference_answers_.index_select(0, at::tensor(pairs)).to(answers.options());
    const ExactLoss loss = exact_policy_loss(
        answers, of_pass, reference, {.num_documents = num_of_step, .kl_coef = options_.kl_coef});
    loss_sum.add(loss.loss), entropy_sum.add(loss.entropy);
    if (loss.kl.defined()) kl_sum.add(loss.kl);
    figures.count += std::ssize(of_pass);
    backward(loss.loss);
  }
  stats.loss += loss_sum.value();
  figures.entropy = entropy_sum.value(), figures.kl = kl_sum.value();

  const auto count = static_cast<double>(num_of_step);
  double sum = 0, squares = 0, unformatted = 0, positive = 0, num_positive = 0;
  double score_positive = 0, score_negative = 0;
  std::vector<std::vector<double>> scores(batch.queries.size());
  for (size_t e = 0; e < num_documents; ++e) {
    const auto [q, i] = batch.pairs[e];
    sum += rewards[e], squares += rewards[e] * rewards[e];
    unformatted += policies[e].back();
    double score = 0;
    for (int k = 0; k <= text::max_answer(scale()); ++k) score += k * policies[e][k];
    score /= std::max(1 - policies[e].back(), kLeastProbability);
    scores[q].push_back(score);
    const bool relevant = queries_[batch.queries[q]].grades[i] >= options_.reward.positive_grade;
    if (relevant) positive += rewards[e], ++num_positive;
    (relevant ? score_positive : score_negative) += score;
  }
  double ndcg =
      ndcg_10(batch.queries, std::move(scores)) * static_cast<double>(batch.queries.size());
  all_sum(model.ranks, {&stats.loss, &sum, &squares, &unformatted, &positive, &num_positive,
                        &score_positive, &score_negative, &ndcg});
  all_sum(model.ranks, {&num_flat, &needed, &stats.num_tokens, &stats.num_rows});
  all_sum(model.ranks, figures);
  const double mean = sum / count, num_negative = count - num_positive;
  stats.figures = {
      {"reward", mean},
      {"ndcg_10", ndcg / static_cast<double>(mini_batch(step).size())},
      {"reward_std", std::sqrt(std::max(0.0, squares / count - mean * mean))},
      {"reward_positive", positive / std::max(1.0, num_positive)},
      {"reward_negative", (sum - positive) / std::max(1.0, num_negative)},
      {"score_positive", score_positive / std::max(1.0, num_positive)},
      {"score_negative", score_negative / std::max(1.0, num_negative)},
      {"unformatted", unformatted / count},
      {"flat_groups", static_cast<double>(num_flat) / count},
      {"computed_per_needed", static_cast<double>(stats.num_tokens) / static_cast<double>(needed)},
      {"kl", figures.mean(figures.kl)},
      {"entropy", figures.mean(figures.entropy)}};
  stats.halt = unformatted / count > 1 - 1e-6
                   ? unformatted_reason()
                   : reason_to_halt(figures.mean(figures.kl), figures.mean(figures.entropy));
  return stats;
}

bool ExactObjective::save(const std::string& path, int64_t step) const {
  return save_tensors(path, step, {});
}

void ExactObjective::load(const std::string& path) {
  has_reference_ = false;
  model::load_tensors(path, state_tensors());
  has_reference_ = true;
}

}  // namespace erank::train
