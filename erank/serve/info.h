// What the server tells of itself. Pure.
#pragma once

#include "erank/base/json.h"
#include "erank/serve/service.h"

namespace erank::serve {

// TEI's /info, and our limits and choices next to its keys.
base::OrderedJson info_json(const ServiceOptions& options, const base::OrderedJson& calibration,
                            const rank::Reranker& reranker);
// OpenAI's /v1/models.
base::OrderedJson models_json(const rank::Reranker& reranker, int64_t created);
// /live, for a page that asks each second.
base::OrderedJson live_json(const ServiceStats& stats);

}  // namespace erank::serve
