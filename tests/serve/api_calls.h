// Reading the bodies of calls.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "erank/serve/api.h"

namespace erank::serve {

inline RerankCall rerank(const std::string& body, const ApiLimits& limits = {}) {
  return parse_call(PostRoute::kRerank, body, limits);
}
// `fields` next to a query and two documents.
inline RerankCall with(const std::string& fields) {
  return rerank(R"({"query": "q", "documents": ["a", "b"], )" + fields + "}");
}

// What is told of a call that is wrong.
inline ApiError error_of(const std::string& body, const ApiLimits& limits = {},
                         PostRoute route = PostRoute::kRerank) {
  try {
    parse_call(route, body, limits);
  } catch (const ApiError& error) {
    return error;
  }
  ADD_FAILURE() << "no ApiError of " << body;
  return ApiError(0, "");
}
inline ApiError error_with(const std::string& fields) {
  return error_of(R"({"query": "q", "documents": ["a", "b"], )" + fields + "}");
}

}  // namespace erank::serve
