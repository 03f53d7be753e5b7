// What a client's JSON asks for, in the forms of Cohere, Jina, vLLM, TEI, llama.cpp and Voyage, and
// how it is told that it is wrong. Pure and thread-safe. serve/reply.h writes the answers.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "erank/rank/ranking.h"
#include "erank/serve/http.h"

namespace erank::serve {

// How a client expects its answer.
enum class Shape {
  kEnvelope,  // an object with "results": Cohere, Jina, vLLM, llama.cpp; Voyage's "data" too
  kTei,       // a bare array: the documents came as "texts"
  kScore,     // vLLM's /score: an object with "data", in the order of the pairs
};

// What goes to a client in place of a result.
class ApiError : public std::runtime_error {
 public:
  // `param` names the field that is wrong, or "".
  ApiError(int status, const std::string& message, std::string param = {});

  int status;
  std::string param;
  Shape shape = Shape::kEnvelope;
  bool empty = false;                // a list without elements: TEI's type "Empty"
  std::optional<int> retry_after_s;  // the header Retry-After
};

// {"error": {"message", "type", "param", "code"}, "error_type", "message", "detail", "id"}: vLLM's
// and OpenAI's readers take "error", Jina's and Voyage's "detail", Cohere's "message". In TEI's
// shape
// {"error": message, "error_type"}.
std::string error_body(const ApiError& error, std::string_view id);
HttpReply error_reply(const ApiError& error, std::string_view id);

struct ApiLimits {
  int64_t max_documents = 1000;       // of a call; of several queries, their sum
  int64_t max_text_bytes = 16 << 20;  // of a call's pairs: document, query and instruction of each
  int max_think_tokens = 32768;       // that a call may ask for
  int max_samples = 64;               // likewise
};

// What a call is taken to say that does not say it.
struct ApiDefaults {
  rank::Mode mode = rank::Mode::kDirect;  // the model's
  // As rank::ScoreOptions has them. The samples count for calls that draw: with reasoning and a
  // temperature above 0.
  int samples = 1;
  double temperature = 0;
  uint64_t seed = 0;
};

// One query of a call.
struct QueryCall {
  std::string query;
  std::shared_ptr<const std::vector<std::string>> documents;
  std::vector<double> first_stage;  // with options.hybrid_weight: one a document
  std::vector<size_t> positions;    // Shape::kScore: where each pair is in the answer
};

struct RerankCall {
  Shape shape = Shape::kEnvelope;
  bool voyage = false;   // "top_k" was given: the results are in "data" too
  bool several = false;  // the queries came as a list: the answer has "rankings"
  std::vector<QueryCall> queries;
  int64_t num_pairs = 0;
  int64_t top_n = 0;  // 0: all
  bool return_documents = true;
  bool raw_scores = false;
  bool return_reasoning = false;
  bool return_distribution = false;
  bool stream = false;
  std::optional<int64_t> deadline_ms;
  // Direct scores for all, then reasoning for this many of each query's best. 0: not asked for.
  int64_t explain_top = 0;
  rank::ScoreOptions options;
};

inline constexpr std::string_view kPostPaths[] = {
    "/rerank", "/v1/rerank", "/v2/rerank", "/reranking", "/v1/reranking", "/score", "/v1/score"};
enum class PostRoute { kRerank, kScore };
// Of a POST's path; a slash at its end does not count.
std::optional<PostRoute> post_route(std::string_view path);

// The shape that the client of a request expects which is not read, or not to its end: TEI's of
// /info and where the beginning of the body has "texts".
Shape likely_shape(std::string_view path, std::string_view body);
// What is told of a request that was refused before it was read as a call; of 429 and 503 with
// Retry-After. `request` holds what has come of it.
HttpReply fault_reply(const HttpRequest& request, int status, const std::string& message);

// Reads a call. A field that is null counts as absent, one that is unknown is ignored, numbers and
// booleans may be texts; docs/serving.md lists the fields. Broken UTF-8 and half surrogates become
// U+FFFD. Throws ApiError: 400 (in TEI's shape 422) for what is wrong, 413 for too much, 422 for
// more reasoning than is allowed.
RerankCall parse_call(PostRoute route, std::string_view body, const ApiLimits& limits,
                      const ApiDefaults& defaults = {});

}  // namespace erank::serve
