// A pair's result as JSON: a line of `erank rerank --format jsonl`, and an entry of its journal.
// docs/formats.md names every key.
#pragma once

#include <string>

#include "erank/base/json.h"
#include "erank/rank/ranking.h"

namespace erank::rank {

// {"qid", "docid", "rank", "score", "integer", "probability", "distribution": [11],
// "first_stage_score", "reasoning", "finish", "flags", "prompt_tokens", "new_tokens"}; `rank`
// counts from 1; "relevance" comes after "distribution" where it is known, and of a document read
// in windows "window": {"number", "of", "begin", "end"} after "flags". Of a result with an
// error: score, answer and finish null, and "error": {"kind", "message"} at the end.
base::OrderedJson to_json(const std::string& qid, int64_t rank, const PassageResult& result);

// The same for a document that was passed on without being scored (below the cut): score and answer
// null, flags ["not_reranked"].
base::OrderedJson unscored_json(const std::string& qid, int64_t rank, const std::string& docid,
                                std::optional<double> first_stage_score);

// What to_json wrote of a result without an error, index and cached_tokens left 0; every number
// comes back bit for bit. Throws Error{kInvalidInput} for anything else.
PassageResult result_from_json(const base::Json& json, const std::string& where);

std::string finish_name(Finish finish);  // "answered", "forced", "clipped"
// "too_long", "no_room", "not_finite", "failed", "cancelled"
std::string error_name(PassageError::Kind kind);

}  // namespace erank::rank
