// How fast a step of supervised fine-tuning is on random weights of the shape of SmolLM2-135M, and
// transformers + peft on the same weights, pairs and loss in the same run, one after the other.
// bf16 where the processor multiplies it, else fp32, for both. Prints a line of JSON a measurement.
//   train_speed [pairs a step, default 32] [timed steps, default 2] [shared, apart or full: only
//   this one]
#include <ATen/Parallel.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/base/random.h"
#include "erank/base/threads.h"
#include "erank/model/gemm_peak.h"
#include "erank/model/lora.h"
#include "erank/model/weights.h"
#include "erank/train/sft.h"
#include "tests/shared_data.h"

namespace {

using namespace erank;

constexpr int kGroup = 8, kSharedTokens = 60, kRank = 16;
constexpr double kRate = 1e-4;

struct Settings {
  std::string name;
  bool full = false;   // every parameter; else LoRA of rank 16 on every linear layer
  bool shared = true;  // 8 pairs of a query begin alike, as real prompts do; else nothing is common
};

// Prompts of 60 common tokens a query and 34 to 54 of their own, then the direct answer's opening,
// and a teacher's distribution to learn: about 111 tokens.
std::vector<train::Example> make_examples(int num_pairs, bool shared, int64_t vocab) {
  base::Random random(7);
  const auto ids = [&](uint64_t count) {
    text::Ids out(count);
    for (auto& id : out) id = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocab)));
    return out;
  };
  const text::Ids opening = ids(6);
  std::vector<train::Example> examples(static_cast<size_t>(num_pairs));
  text::Ids prefix;
  for (int i = 0; i < num_pairs; ++i) {
    if (!shared || i % kGroup == 0) prefix = ids(kSharedTokens);
    train::Example& example = examples[static_cast<size_t>(i)];
    example.qid = std::to_string(shared ? i / kGroup : i);
    example.prompt = prefix;
    const text::Ids own = ids(34 + random.below(21));
    example.prompt.insert(example.prompt.end(), own.begin(), own.end());
    train::Branch branch{opening, {}};
    const auto row = static_cast<int32_t>(opening.size());
    const int32_t one = 101;
    for (int32_t digit = 0; digit < 10; ++digit)
      branch.terms.push_back({row, 100 + digit, digit == i % 10 ? 0.55f : 0.05f});
    branch.ids.push_back(one);
    branch.terms.push_back({row + 1, 100, 0.02f});
    branch.terms.push_back({row + 1, 100, 0.03f, true});
    example.branches.push_back(std::move(branch));
  }
  return examples;
}

// What the peer reads: each pair's ids and its addends of the step's loss, the weights divided by
// all that the step divides them by. Row 0 is read at the prompt's last token.
base::Json for_peer(const std::vector<train::Example>& examples) {
  base::Json pairs = base::Json::array();
  for (const auto& example : examples) {
    const train::Branch& branch = example.branches.front();
    const auto scale =
        1.0 / static_cast<double>(branch.num_learned * static_cast<int64_t>(examples.size()));
    base::Json terms = base::Json::array();
    for (const auto& term : branch.terms)
      terms.push_back({static_cast<int64_t>(example.prompt.size()) - 1 + term.row, term.token,
                       term.weight * scale, term.complement});
    text::Ids ids = example.prompt;
    ids.insert(ids.end(), branch.ids.begin(), branch.ids.end());
    pairs.push_back({{"ids", ids}, {"terms", terms}});
  }
  return pairs;
}

class Ours {
 public:
  Ours(const std::string& folder, at::ScalarType dtype, const Settings& settings, int num_pairs)
      : parameters_(model::load_parameters(folder, dtype)),
        forward_(*parameters_),
        objective_(make_examples(num_pairs, settings.shared, parameters_->config().vocab_size),
                   {.batch_size = num_pairs,
                    .group_size = settings.shared ? kGroup : 1,
                    .epochs = 1000,
                    .packing = {}},
                   nullptr),
        optimizer_(trained(settings.full), {}) {
    double frozen = 0, adapters = 0;
    for (const auto& [name, linear] : parameters_->linears()) {
      frozen += static_cast<double>(linear->weight.numel());
      if (linear->lora)
        adapters += static_cast<double>(linear->lora->a.numel() + linear->lora->b.numel());
    }
    flops_per_token_ = frozen * (settings.full ? 6 : 4) + adapters * 6;
  }

  // A step that is not timed, then `steps` that are.
  void run(int steps) {
    step();
    for (int i = 0; i < steps; ++i) seconds_ = std::min(seconds_, step());
  }

  double seconds() const { return seconds_; }  // the best step's
  double first_loss() const { return first_loss_; }
  // Tokens that a step's passes compute, what queries share counted once.
  int64_t num_tokens() const { return num_tokens_; }
  double flops_per_step() const { return flops_per_token_ * static_cast<double>(num_tokens_); }

 private:
  std::vector<model::NamedTensor> trained(bool full) {
    if (full) return parameters_->named();
    const model::LoraConfig config{.rank = kRank, .alpha = 2.0 * kRank, .target_modules = {}};
    parameters_->add_adapter("a", model::make_adapter(parameters_->config(), config, 1));
    return parameters_->adapter("a")->named();
  }

  double step() {
    const auto begin = std::chrono::steady_clock::now();
    forward_.set_training(true);
    const auto stats =
        objective_.accumulate({*parameters_, forward_}, num_steps_,
                              [&](const at::Tensor& loss) { optimizer_.backward(loss); });
    optimizer_.step(kRate);
    if (num_steps_++ == 0) first_loss_ = stats.loss, num_tokens_ = stats.num_tokens;
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }

  std::unique_ptr<model::Parameters> parameters_;
  train::TreeForward forward_;
  train::SftObjective objective_;
  train::AdamW optimizer_;
  int64_t num_steps_ = 0, num_tokens_ = 0;
  double seconds_ = 1e30, first_loss_ = 0, flops_per_token_ = 0;
};

class Bench {
 public:
  Bench(int num_pairs, int steps) : num_pairs_(num_pairs), steps_(steps) {
    folder_ = (std::filesystem::temp_directory_path() /
               ("erank_train_speed_" + std::to_string(::getpid())))
                  .string();
    std::filesystem::create_directories(folder_);
    dtype_ = model::usual_dtype(at::kCPU);
    model::write_random_weights(model::config_of_shape("smollm2-135m"), 1, at::kBFloat16,
                                folder_ + "/model");
  }
  ~Bench() { std::filesystem::remove_all(folder_); }
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;

  void run(const Settings& settings) {
    const double peak = model::gemm_peak({.precision = model::precision_of(dtype_)}).flops_per_s;
    base::OrderedJson line = {{"tool", "erank"},
                              {"setting", settings.name},
                              {"precision", precision()},
                              {"threads", at::get_num_threads()},
                              {"pairs_a_step", num_pairs_}};
    double seconds = 0, loss = 0;
    {
      Ours ours(folder_ + "/model", dtype_, settings, num_pairs_);
      ours.run(steps_);
      seconds = ours.seconds(), loss = ours.first_loss();
      line["tokens_a_step"] = ours.num_tokens();
      line["pairs_per_s"] = num_pairs_ / seconds;
      line["tokens_per_s"] = static_cast<double>(ours.num_tokens()) / seconds;
      line["gemm_peak_gflops"] = peak / 1e9;
      line["share_of_gemm_peak"] = ours.flops_per_step() / seconds / peak;
      line["first_loss"] = loss;
    }
    print(line);
    const auto theirs = peer(settings);
    if (!theirs) return;
    print({{"setting", settings.name},
           {"loss_difference", std::abs(theirs->value("first_loss", 0.0) - loss)},
           {"times_as_many_pairs_per_s", theirs->value("seconds", 0.0) / seconds}});
  }

 private:
  std::string precision() const { return dtype_ == at::kFloat ? "fp32" : "bf16"; }

  static void print(const base::OrderedJson& line) {
    std::printf("%s\n", line.dump().c_str());
    std::fflush(stdout);
  }

  // The peer's line; nullopt when it cannot run.
  std::optional<base::Json> peer(const Settings& settings) const {
    const std::string python = erank::testing::test_python(), out = folder_ + "/peer.out";
    const auto examples = make_examples(num_pairs_, settings.shared,
                                        model::config_of_shape("smollm2-135m").vocab_size);
    base::write_file_atomic(folder_ + "/pairs.json", base::dump_json(for_peer(examples)));
    const std::string command =
        "'" + python + "' '" ERANK_SOURCE_DIR "/bench/train_speed_peer.py' '" + folder_ +
        "/model' '" + folder_ + "/pairs.json' " + (settings.full ? "full " : "lora ") +
        precision() + " " + std::to_string(at::get_num_threads()) + " " + std::to_string(steps_) +
        " > '" + out + "'";
    constexpr int kMissing = 3;  // what the peer exits with when it lacks its libraries
    const int ended = python.empty() ? 0 : std::system(command.c_str());
    const int status = python.empty() ? kMissing : WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
    if (status != 0) {
      print({{"tool", "transformers + peft"},
             {"skipped", status == kMissing
                             ? "no Python that has them; ERANK_TEST_PYTHON may name one"
                             : "the peer failed"}});
      return std::nullopt;
    }
    const std::string line = base::read_file(out);
    std::fputs(line.c_str(), stdout);
    return base::parse_json(line, "peer");
  }

  int num_pairs_, steps_;
  std::string folder_;
  at::ScalarType dtype_ = at::kFloat;
};

}  // namespace

int main(int argc, char** argv) {
  const int num_pairs = argc > 1 ? std::atoi(argv[1]) : 32,
            steps = argc > 2 ? std::atoi(argv[2]) : 2;
  const std::string only = argc > 3 ? argv[3] : "";
  if (num_pairs < 1 || steps < 1) {
    std::fprintf(stderr, "usage: train_speed [pairs a step] [timed steps] [shared|apart|full]\n");
    return 2;
  }
  at::set_num_threads(base::num_processors());
  Bench bench(num_pairs, steps);
  const Settings all[] = {
      {.name = "shared"}, {.name = "apart", .shared = false}, {.name = "full", .full = true}};
  for (const Settings& settings : all)
    if (only.empty() || settings.name == only) bench.run(settings);
  return 0;
}
