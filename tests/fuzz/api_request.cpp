// Requests of `erank serve`: any bytes as a body give a call whose parts fit together, or an error
// that goes into JSON; any bytes are read as a target and as what headers hold. The first byte
// chooses the route.
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/serve/api.h"
#include "erank/serve/http_text.h"
#include "tests/fuzz/memory_file.h"

using namespace erank;

namespace {

void check_call(const serve::RerankCall& call) {
  int64_t pairs = 0;
  fuzz::demand(!call.queries.empty());
  for (const serve::QueryCall& query : call.queries) {
    fuzz::demand(!query.query.empty() && base::is_valid_utf8(query.query));
    fuzz::demand(query.documents && !query.documents->empty());
    for (const std::string& text : *query.documents) fuzz::demand(base::is_valid_utf8(text));
    fuzz::demand(query.first_stage.size() ==
                 (call.options.hybrid_weight ? query.documents->size() : 0));
    for (const double score : query.first_stage) fuzz::demand(std::isfinite(score));
    if (call.shape == serve::Shape::kScore)
      fuzz::demand(query.positions.size() == query.documents->size());
    pairs += std::ssize(*query.documents);
  }
  fuzz::demand(call.options.samples >= 1 && call.options.samples <= serve::ApiLimits{}.max_samples);
  fuzz::demand(call.options.temperature >= 0 && std::isfinite(call.options.temperature));
  fuzz::demand(call.options.samples == 1 || call.options.temperature > 0);
  fuzz::demand(pairs == call.num_pairs && call.top_n >= 0 && call.explain_top >= 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  const bool scores = data[0] % 2 == 1;
  const serve::ApiLimits limits{.max_documents = 100, .max_text_bytes = 1 << 16};
  try {
    check_call(serve::parse_call(scores ? serve::PostRoute::kScore : serve::PostRoute::kRerank,
                                 text, limits));
  } catch (const serve::ApiError& error) {
    fuzz::demand(error.status == 400 || error.status == 413 || error.status == 422);
    fuzz::demand(base::Json::accept(serve::error_body(error, "id")));
  }
  serve::HttpRequest request;
  request.path = scores ? "/score" : "/rerank";
  request.body = text;
  fuzz::demand(base::Json::accept(serve::fault_reply(request, 408, "slow").body));
  if (const auto target = serve::parse_target(text))
    fuzz::demand(base::is_valid_utf8(target->path));
  const std::string trace = serve::trace_id(text);
  fuzz::demand(trace.empty() || trace.size() == 32);
  fuzz::demand(!serve::request_id(text, "fresh").empty());
  const std::string head =
      serve::head_text(200, {.id = text, .type = text}, {{"X", std::string(text)}});
  fuzz::demand(head.find("\r\n\r\n") == head.size() - 4);
  serve::has_folded_header(text);
  return 0;
}
