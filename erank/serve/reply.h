// What a client gets: rankings as the JSON of its shape, and the events of a stream. Pure and
// thread-safe. docs/serving.md says what each key means.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "erank/base/json.h"
#include "erank/rank/ranking.h"
#include "erank/serve/api.h"
#include "erank/text/scale.h"

namespace erank::serve {

struct ReplyContext {
  std::string id;
  std::string model;
  int64_t created = 0;  // seconds since 1970
  text::Scale scale = text::Scale::kZeroToTen;
};

// A score in [0, 1] that orders as the score does. Without a blend: score / the scale's highest.
// Of a blend by minmax the blend, by rrf 61 times it (1 for a document that is first in both), by
// zscore or sum (1 + x / (1 + |x|)) / 2. Of a document that failed 0.
double relevance_of(const rank::PassageResult& result, const RerankCall& call, text::Scale scale,
                    bool blended);

// One document's entry in a stream, before a ranking is made; without "document".
base::OrderedJson stream_item(const RerankCall& call, size_t query,
                              const rank::PassageResult& result, const ReplyContext& context,
                              bool provisional);

// The whole answer, one ranking for each query of the call: sorted by falling score, equal ones by
// index, what failed at the end, cut to top_n. REQUIRES: every document is in its query's ranking.
base::OrderedJson reply_json(const RerankCall& call, std::span<const rank::Ranking> rankings,
                             const ReplyContext& context);

}  // namespace erank::serve
