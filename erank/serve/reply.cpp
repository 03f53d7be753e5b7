#include "erank/serve/reply.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "erank/base/error.h"
#include "erank/rank/result_json.h"

namespace erank::serve {
namespace {

using base::OrderedJson;
using rank::PassageResult;
using rank::Ranking;

// In the reply's order.
std::vector<const PassageResult*> all_of(const Ranking& ranking) {
  std::vector<const PassageResult*> all;
  for (const auto* list : {&ranking.results, &ranking.failed})
    for (const PassageResult& result : *list) all.push_back(&result);
  return all;
}

// The raw score, or of what failed one that is not above the others.
double raw_of(const PassageResult& result, double least) {
  return result.error ? std::min(0.0, least) : result.score;
}

double least_score(const Ranking& ranking) {
  double least = 0;
  for (const PassageResult& result : ranking.results) least = std::min(least, result.score);
  return least;
}

void add_details(OrderedJson& item, const RerankCall& call, const PassageResult& result,
                 bool blended) {
  if (result.error) {
    item["flags"] = result.flags;
    if (call.options.hybrid_weight && result.first_stage_score)
      item["first_stage_score"] = *result.first_stage_score;
    item["error"] = {{"kind", rank::error_name(result.error->kind)},
                     {"message", result.error->message}};
    return;
  }
  item["score"] = result.score;
  item["integer"] = result.integer;
  item["probability"] = result.probability;
  if (result.relevance) item["relevance"] = *result.relevance;
  if (call.options.hybrid_weight && result.first_stage_score)
    item["first_stage_score"] = *result.first_stage_score;
  if (call.return_distribution) item["distribution"] = result.distribution.answers();
  if (call.return_reasoning) item["reasoning"] = result.reasoning;
  item["finish"] = rank::finish_name(result.finish);
  item["flags"] = result.flags;
  if (result.window)
    item["window"] = {{"number", result.window->number},
                      {"of", result.window->of},
                      {"begin", result.window->begin},
                      {"end", result.window->end}};
  item["prompt_tokens"] = result.prompt_tokens;
  item["new_tokens"] = result.new_tokens;
}

// Clients of these shapes know few keys: ours are there where they were asked for or say what is
// wrong, and where the server is to tell what its scores mean.
void add_few_details(OrderedJson& item, const RerankCall& call, const PassageResult& result) {
  if (result.relevance) item["relevance"] = *result.relevance;
  if (call.return_distribution && !result.error)
    item["distribution"] = result.distribution.answers();
  if (call.return_reasoning && !result.error) item["reasoning"] = result.reasoning;
  if (!result.flags.empty()) item["flags"] = result.flags;
  if (result.error)
    item["error"] = {{"kind", rank::error_name(result.error->kind)},
                     {"message", result.error->message}};
}

struct Usage {
  int64_t prompt = 0, completion = 0;
  explicit Usage(std::span<const Ranking> rankings) {
    for (const Ranking& ranking : rankings)
      for (const PassageResult& result : ranking.results) {
        prompt += result.prompt_tokens;
        completion += result.new_tokens;
      }
  }
  OrderedJson json() const {
    return {{"prompt_tokens", prompt},
            {"completion_tokens", completion},
            {"total_tokens", prompt + completion}};
  }
};

OrderedJson results_json(const RerankCall& call, size_t query, const Ranking& ranking,
                         const ReplyContext& context) {
  const auto& documents = *call.queries[query].documents;
  const double least = least_score(ranking);
  OrderedJson list = OrderedJson::array();
  for (const PassageResult* result : all_of(ranking)) {
    if (call.top_n > 0 && std::ssize(list) == call.top_n) break;
    const double score =
        call.raw_scores ? raw_of(*result, least) : relevance_of(*result, call, context.scale, true);
    OrderedJson item;
    item["index"] = result->index;
    item[call.shape == Shape::kTei ? "score" : "relevance_score"] = score;
    if (call.shape == Shape::kTei) {
      if (call.return_documents) item["text"] = documents[result->index];
      add_few_details(item, call, *result);
    } else {
      if (call.return_documents) item["document"] = {{"text", documents[result->index]}};
      add_details(item, call, *result, true);
    }
    list.push_back(std::move(item));
  }
  return list;
}

OrderedJson head(const char* object, const ReplyContext& context) {
  OrderedJson json;
  json["id"] = context.id;
  json["object"] = object;
  json["created"] = context.created;
  json["model"] = context.model;
  return json;
}

OrderedJson score_json(const RerankCall& call, std::span<const Ranking> rankings,
                       const ReplyContext& context) {
  std::vector<OrderedJson> items(static_cast<size_t>(call.num_pairs));
  for (size_t q = 0; q < rankings.size(); ++q)
    for (const PassageResult* result : all_of(rankings[q])) {
      const size_t place = call.queries[q].positions.at(result->index);
      OrderedJson& item = items.at(place);
      item["index"] = place;
      item["object"] = "score";
      item["score"] = call.raw_scores ? raw_of(*result, least_score(rankings[q]))
                                      : relevance_of(*result, call, context.scale, true);
      add_few_details(item, call, *result);
    }
  OrderedJson json = head("list", context);
  json["data"] = items;
  json["usage"] = Usage(rankings).json();
  return json;
}

}  // namespace

double relevance_of(const PassageResult& result, const RerankCall& call, text::Scale scale,
                    bool blended) {
  if (result.error) return 0;
  double share = result.score / text::max_answer(scale);
  if (blended && call.options.hybrid_weight) {
    const double x = result.score;
    switch (call.options.hybrid_method) {
      case rank::FusionMethod::kMinMax:
        share = x;
        break;
      case rank::FusionMethod::kRrf:
        share = x * (rank::kRrfConstant + 1);
        break;
      case rank::FusionMethod::kZScore:
      case rank::FusionMethod::kSum:
        share = (1 + x / (1 + std::abs(x))) / 2;
        break;
    }
  }
  return std::clamp(share, 0.0, 1.0);
}

OrderedJson stream_item(const RerankCall& call, size_t query, const PassageResult& result,
                        const ReplyContext& context, bool provisional) {
  OrderedJson item;
  if (call.several) item["query"] = query;
  const auto& positions = call.queries[query].positions;
  item["index"] = positions.empty() ? result.index : positions.at(result.index);
  const char* name = call.shape == Shape::kEnvelope ? "relevance_score" : "score";
  item[name] =
      call.raw_scores ? raw_of(result, 0) : relevance_of(result, call, context.scale, false);
  if (call.shape == Shape::kEnvelope)
    add_details(item, call, result, false);
  else
    add_few_details(item, call, result);
  if (provisional) item["provisional"] = true;
  return item;
}

OrderedJson reply_json(const RerankCall& call, std::span<const Ranking> rankings,
                       const ReplyContext& context) {
  ERANK_CHECK(rankings.size() == call.queries.size());
  if (call.shape == Shape::kScore) return score_json(call, rankings, context);
  std::vector<OrderedJson> lists;
  for (size_t q = 0; q < rankings.size(); ++q)
    lists.push_back(results_json(call, q, rankings[q], context));
  if (call.shape == Shape::kTei) {
    if (!call.several) return lists.front();
    return lists;
  }
  OrderedJson json =
      head(call.voyage ? "list" : "rerank", context);  // Infinity's client takes nothing else
  if (call.several) {
    OrderedJson all = OrderedJson::array();
    for (OrderedJson& list : lists) all.push_back({{"results", std::move(list)}});
    json["rankings"] = std::move(all);
  } else {
    if (call.voyage) json["data"] = lists.front();
    json["results"] = std::move(lists.front());
  }
  const Usage usage(rankings);
  json["usage"] = usage.json();
  json["meta"] = {
      {"api_version", {{"version", "2"}, {"is_experimental", false}}},
      {"billed_units", {{"search_units", call.queries.size()}}},
      {"tokens", {{"input_tokens", usage.prompt}, {"output_tokens", usage.completion}}}};
  return json;
}

}  // namespace erank::serve
