#include "cli/model_options.h"

#include "cli/devices.h"
#include "cli/verbs.h"
#include "erank/rank/model_files.h"

namespace erank::cli {

void add_deterministic(CLI::App& verb) {
  verb.add_flag_callback(
      "--deterministic",
      [] { warn("--deterministic has no effect any more: results are always the same bits"); },
      "no effect, accepted for one more release: CPU results are always deterministic");
}

void ModelFlags::add_to(CLI::App& verb) {
  verb.add_option("--model", options.model,
                  "Hugging Face folder, .gguf file or adapter folder (default: erank-135m)");
  verb.add_option("--adapter", options.adapter,
                  "another LoRA adapter (PEFT folder) to put on the model");
  verb.add_option("--prompt-format", options.prompt_format,
                  "JSON {prefix, suffix, stop_ids} in place of the model's chat template");
  verb.add_option("--scale", scale,
                  "what the model is asked for: yes-no, 0-3 or 0-10 (default: the checkpoint's)")
      ->check(CLI::IsMember({"yes-no", "0-3", "0-10"}));
  verb.add_option("--precision", precision,
                  "precision of the matrix products: auto, bf16, int8 or fp32; gguf: weights stay "
                  "in a GGUF file's blocks")
      ->check(CLI::IsMember({"auto", "bf16", "int8", "fp32", "gguf"}))
      ->capture_default_str();
  verb.add_option("--device", device,
                  "cpu, cuda, or GPUs, e.g. cuda:0,1, that share the queries out, each with a copy "
                  "of the model")
      ->check(device_check(true))
      ->capture_default_str();
  add_deterministic(verb);
  verb.add_option("--threads", options.threads, "compute threads (default: one per processor)")
      ->check(CLI::Range(1, 1024));
  verb.add_option(
          "--kv-cache-bytes", options.kv_cache_bytes,
          "the most memory for keys and values, e.g. 2GB (default: 2 GiB; on each GPU most of what "
          "is free); less fits fewer pairs at once")
      ->transform(CLI::AsSizeValue(false));
}

rank::RerankerOptions ModelFlags::resolved() const {
  rank::RerankerOptions out = options;
  out.precision = precision == "fp32"   ? rank::Precision::kFp32
                  : precision == "bf16" ? rank::Precision::kBf16
                  : precision == "int8" ? rank::Precision::kInt8
                  : precision == "gguf" ? rank::Precision::kGguf
                                        : rank::Precision::kAuto;
  out.devices = parse_devices(device);
  if (!scale.empty()) out.scale = text::parse_scale(scale, "--scale");
  return out;
}

std::vector<std::string> ModelFlags::files() const {
  std::vector<std::string> files = rank::paths_of_model(options.model);
  files.push_back(options.adapter);
  files.push_back(options.prompt_format);
  return files;
}

}  // namespace erank::cli
