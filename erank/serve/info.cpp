#include "erank/serve/info.h"

namespace erank::serve {

using base::OrderedJson;

namespace {

// Of query and document together; a longer document is read in windows.
int64_t max_input_length(const rank::Reranker& reranker) {
  const text::PromptOptions& prompt = reranker.defaults().prompt;
  return int64_t{prompt.max_query_tokens} + prompt.max_document_tokens;
}

}  // namespace

OrderedJson info_json(const ServiceOptions& options, const OrderedJson& calibration,
                      const rank::Reranker& reranker) {
  const rank::CheckpointDefaults& defaults = reranker.defaults();
  OrderedJson json;
  json["model_id"] = reranker.model_name();
  json["model_sha"] = nullptr;
  json["model_dtype"] = reranker.precision_name();
  json["model_type"] = {
      {"reranker", {{"id2label", {{"0", "LABEL_0"}}}, {"label2id", {{"LABEL_0", 0}}}}}};
  json["max_concurrent_requests"] = options.max_waiting_calls;
  json["max_input_length"] = max_input_length(reranker);
  json["max_batch_tokens"] = nullptr;
  json["max_batch_requests"] = nullptr;
  json["max_client_batch_size"] = options.limits.max_documents;
  json["auto_truncate"] = true;
  json["tokenization_workers"] = 1;
  json["version"] = options.version;
  json["sha"] = nullptr;
  json["docker_label"] = nullptr;
  json["max_documents"] = options.limits.max_documents;
  json["max_body_bytes"] = options.max_body_bytes;
  json["max_text_bytes"] = options.limits.max_text_bytes;
  json["max_queued_pairs"] = options.max_queued_pairs;
  json["max_think_tokens"] = options.limits.max_think_tokens;
  json["max_samples"] = options.limits.max_samples;
  json["max_query_tokens"] = defaults.prompt.max_query_tokens;
  json["max_document_tokens"] = defaults.prompt.max_document_tokens;
  json["scale"] = text::scale_name(defaults.prompt.scale);
  json["modes"] = {"direct", "think"};
  json["default_mode"] = mode_name(defaults.mode);
  json["default_max_think_tokens"] = defaults.max_think_tokens;
  json["default_score"] = rank::to_json(defaults)["score"];
  json["default_instruction"] = defaults.instruction;
  json["default_samples"] = options.defaults.samples;
  json["default_temperature"] = options.defaults.temperature;
  json["default_seed"] = options.defaults.seed;
  json["default_deadline_ms"] = options.default_deadline_ms > 0
                                    ? OrderedJson(options.default_deadline_ms)
                                    : OrderedJson(nullptr);
  json["calibration"] = calibration;
  OrderedJson presets = OrderedJson::array();
  for (const auto& [name, text] : options.instructions)
    presets.push_back(OrderedJson{{"name", name}, {"text", text}});
  json["instructions"] = std::move(presets);
  return json;
}

OrderedJson models_json(const rank::Reranker& reranker, int64_t created) {
  OrderedJson model;
  model["id"] = reranker.model_name();
  model["object"] = "model";
  model["created"] = created;
  model["owned_by"] = "erank";
  model["max_model_len"] = max_input_length(reranker);
  OrderedJson json;
  json["object"] = "list";
  json["data"] = OrderedJson::array({std::move(model)});
  return json;
}

OrderedJson live_json(const ServiceStats& stats) {
  const auto& engine = stats.reranker.engine;
  const auto needed = static_cast<double>(engine.computed_tokens + engine.cached_tokens);
  OrderedJson json;
  json["queued_pairs"] = stats.queued_pairs;
  json["requests_running"] = stats.running_calls;
  json["requests_waiting"] = stats.waiting_calls;
  json["pairs"] = stats.computed_pairs + stats.cache_hits;
  json["tokens_per_s"] = stats.tokens_per_s;
  json["prefix_reuse"] = needed > 0 ? static_cast<double>(engine.cached_tokens) / needed : 0.0;
  json["cache_hits"] = stats.cache_hits;
  json["uptime_s"] = stats.uptime_s;
  return json;
}

}  // namespace erank::serve
