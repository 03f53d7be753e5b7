#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>

#include "cli/checks.h"
#include "cli/devices.h"
#include "cli/model_options.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/memory.h"
#include "erank/base/random.h"
#include "erank/base/threads.h"
#include "erank/engine/engine.h"
#include "erank/model/gemm_peak.h"
#include "erank/model/make_network.h"
#include "erank/model/random_source.h"

namespace erank::cli {
namespace {

struct BenchFlags {
  std::string shape = "smollm2-135m", precision = "bf16", device = "cpu";
  int threads = 0, prompt_tokens = 512, num_prompts = 16, own_tokens = 180, prefix_tokens = 150,
      new_tokens = 32, think_tokens = 64, num_documents = 64;
  std::vector<std::string> only;
  bool json = false;
  int64_t max_batch_tokens = 0;
};

using Clock = std::chrono::steady_clock;

double seconds_of(const std::function<void()>& body) {
  const auto begin = Clock::now();
  body();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

std::optional<int> gpu_of(const BenchFlags& flags) {
  return parse_devices(flags.device).front().gpu;
}

std::unique_ptr<model::Network> random_network(const BenchFlags& flags) {
  const auto precision = model::precision_named(flags.precision);
  const model::RandomSource source(model::config_of_shape(flags.shape), 1,
                                   precision == model::Precision::kGguf);
  return model::make_network(
      source, {.precision = precision, .gpu = gpu_of(flags), .threads = flags.threads});
}

class Bench {
 public:
  explicit Bench(const BenchFlags& flags)
      : flags_(flags), network_(random_network(flags)), config_(network_->config()), random_(1) {}

  struct Timed {
    double seconds = 0;
    engine::EngineStats stats;
    double flops = 0;  // of all matrix products and attention computed
  };

  // `num` prompts of `length` ids, the first `shared` of them common; each then samples
  // `new_tokens`.
  Timed run(int num, int length, int shared, int new_tokens) {
    engine::Engine engine(*network_, {.max_batch_tokens = flags_.max_batch_tokens});
    const base::Ids prefix = ids(shared);
    for (int i = 0; i < num; ++i) {
      engine::Request request{.prompt = prefix, .max_new_tokens = new_tokens};
      const auto own = ids(length - shared);
      request.prompt.insert(request.prompt.end(), own.begin(), own.end());
      if (new_tokens == 0) request.choices = {{1}};
      engine.submit(std::move(request), [](engine::Completion c) {
        if (c.fault) std::rethrow_exception(c.fault);
      });
    }
    Timed t;
    t.seconds = seconds_of([&] { engine.run(); });
    t.stats = engine.stats();
    const double attention = 4.0 * config_.q_size() * config_.num_hidden_layers;
    double pairs = 0;  // query-key pairs
    for (int i = 0; i < num; ++i) {
      const int begin = i == 0 ? 0 : shared;
      for (int p = begin; p < length + new_tokens; ++p) pairs += p + 1;
    }
    t.flops = static_cast<double>(t.stats.computed_tokens) * config_.flops_per_token() +
              attention * pairs;
    return t;
  }

  const model::ModelConfig& config() const { return config_; }
  int64_t weight_bytes() const { return network_->weight_bytes(); }

 private:
  base::Ids ids(int n) {
    base::Ids out(static_cast<size_t>(std::max(0, n)));
    for (auto& id : out)
      id = static_cast<int32_t>(random_.below(static_cast<uint64_t>(config_.vocab_size)));
    return out;
  }

  const BenchFlags& flags_;
  std::unique_ptr<model::Network> network_;
  model::ModelConfig config_;
  base::Random random_;
};

void bench(const BenchFlags& flags) {
  at::set_num_threads(flags.threads > 0 ? flags.threads : base::num_processors());
  // First, so that what it takes is given back before the model is there.
  const double peak =
      model::gemm_peak({.precision = model::product_precision(
                            model::precision_named(flags.precision), gpu_of(flags).has_value()),
                        .gpu = gpu_of(flags),
                        .threads = flags.threads})
          .flops_per_s;
  Bench bench(flags);
  base::OrderedJson out;
  out["shape"] = flags.shape;
  out["precision"] = flags.precision;
  out["device"] = flags.device;
  out["threads"] = at::get_num_threads();
  const auto wanted = [&](const char* part) {
    return flags.only.empty() ||
           std::find(flags.only.begin(), flags.only.end(), part) != flags.only.end();
  };
  out["gemm_gflops"] = peak / 1e9;
  // Warm up. A GPU takes its memory and chooses its kernels in the first passes of a size.
  bench.run(gpu_of(flags) ? flags.num_prompts : 2, flags.prompt_tokens, 0, 0);

  if (wanted("prefill")) {
    const auto prefill = bench.run(flags.num_prompts, flags.prompt_tokens, 0, 0);
    out["prefill_tokens_per_s"] =
        static_cast<double>(prefill.stats.computed_tokens) / prefill.seconds;
    out["prefill_share_of_gemm"] = prefill.flops / prefill.seconds / peak;
  }

  const int documents = flags.num_documents, length = flags.prefix_tokens + flags.own_tokens;
  if (wanted("direct")) {
    const auto direct = bench.run(documents, length, flags.prefix_tokens, 0);
    out["direct_documents_per_s"] = documents / direct.seconds;
    out["direct_share_of_gemm"] = direct.flops / direct.seconds / peak;
  }
  if (wanted("think")) {
    const auto think = bench.run(documents, length, flags.prefix_tokens, flags.think_tokens);
    out["think_documents_per_s"] = documents / think.seconds;
    out["think_share_of_gemm"] = think.flops / think.seconds / peak;
  }

  for (const int batch : {1, 8, 64}) {
    if (!wanted("decode")) break;
    const auto decode = bench.run(batch, 16, 0, flags.new_tokens);
    const std::string key = base::str("decode_", batch);
    out[key + "_tokens_per_s"] = static_cast<double>(decode.stats.new_tokens) / decode.seconds;
    out[key + "_weight_gb_per_s"] =
        static_cast<double>(decode.stats.steps * bench.weight_bytes()) / decode.seconds / 1e9;
  }

  out["weight_bytes"] = bench.weight_bytes();
  out["peak_memory_bytes"] = base::peak_memory();

  if (flags.json) {
    Output result("", false);
    result.write(base::dump_json(out) + "\n");
    return result.commit();
  }
  const auto number = [&](const char* key) { return out[key].get<double>(); };
  char text[512];
  Output result("", false);
  const auto line = [&](const char* what, const std::string& value) {
    std::snprintf(text, sizeof text, "%-46s %s\n", what, value.c_str());
    result.write(text);
  };
  const auto fixed = [](const char* format, auto... values) {
    char value[128];
    std::snprintf(value, sizeof value, format, values...);
    return std::string(value);
  };
  line("shape, precision, device, threads", base::str(flags.shape, ", ", flags.precision, ", ",
                                                      flags.device, ", ", at::get_num_threads()));
  line("GEMM peak", fixed("%8.0f GFLOP/s", number("gemm_gflops")));
  if (wanted("prefill"))
    line(base::str("prefill, ", flags.num_prompts, " prompts of ", flags.prompt_tokens, " tokens")
             .c_str(),
         fixed("%8.0f tokens/s   %.2f of GEMM peak", number("prefill_tokens_per_s"),
               number("prefill_share_of_gemm")));
  if (wanted("direct"))
    line(base::str("direct, ", documents, " passages of ", flags.own_tokens, " tokens, prefix of ",
                   flags.prefix_tokens)
             .c_str(),
         fixed("%8.2f passages/s   %.2f of GEMM peak", number("direct_documents_per_s"),
               number("direct_share_of_gemm")));
  if (wanted("think"))
    line(base::str("think, the same and ", flags.think_tokens, " new tokens each").c_str(),
         fixed("%8.2f passages/s   %.2f of GEMM peak", number("think_documents_per_s"),
               number("think_share_of_gemm")));
  for (const int batch : {1, 8, 64}) {
    if (!wanted("decode")) break;
    const std::string key = base::str("decode_", batch);
    line(base::str("decode, ", batch, " at once").c_str(),
         fixed("%8.0f tokens/s   weights at %.0f GB/s", number((key + "_tokens_per_s").c_str()),
               number((key + "_weight_gb_per_s").c_str())));
  }
  line("weights, peak memory of the process",
       base::str(base::memory_text(bench.weight_bytes()), ", ",
                 base::memory_text(out["peak_memory_bytes"].get<int64_t>())));
  result.commit();
}

}  // namespace

void add_bench(CLI::App& app, Context& context) {
  auto* verb = app.add_subcommand(
      "bench", "Measure prefill and decode on random weights against this machine's GEMM peak");
  auto flags = std::make_shared<BenchFlags>();
  BenchFlags& f = *flags;
  verb->footer("Example:\n  erank bench --shape qwen3-0.6b");
  verb->add_option("--shape", f.shape,
                   "tiny, smollm2-135m, qwen3-0.6b, qwen3-4b, qwen3-14b or qwen3-32b")
      ->capture_default_str();
  verb->add_option("--precision", f.precision,
                   "precision of the matrix products: bf16, int8 or fp32; gguf: weights in 4-bit "
                   "blocks")
      ->check(CLI::IsMember({"bf16", "int8", "fp32", "gguf"}))
      ->capture_default_str();
  verb->add_option("--device", f.device, "cpu, cuda, or another GPU, e.g. cuda:1")
      ->check(device_check(false))
      ->capture_default_str();
  verb->add_option("--threads", f.threads, "compute threads (default: one per processor)")
      ->check(CLI::Range(1, 1024));
  verb->add_option("--prompt-tokens", f.prompt_tokens, "length of a prefill prompt")
      ->check(CLI::Range(1, 32768))
      ->capture_default_str();
  verb->add_option("--prompts", f.num_prompts, "number of prefill prompts")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb->add_option("--documents", f.num_documents, "number of passages of direct and think")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb->add_option("--think-tokens", f.think_tokens, "new tokens of a passage of think")
      ->check(CLI::Range(1, 32768))
      ->capture_default_str();
  verb->add_option("--only", f.only,
                   "parts to measure: prefill, direct, think, decode (default: all)")
      ->check(CLI::IsMember({"prefill", "direct", "think", "decode"}))
      ->delimiter(',');
  verb->add_option("--max-batch-tokens", f.max_batch_tokens,
                   "most tokens per forward pass (default: the network's)")
      ->check(positive_number());
  add_deterministic(*verb);
  verb->add_flag("--json", f.json, "print one JSON object");
  verb->callback([flags, &context] { context.run = [flags] { bench(*flags); }; });
}

}  // namespace erank::cli
