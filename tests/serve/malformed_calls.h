// Bodies of calls as clients send them, spoiled in their bytes or in their values.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "erank/base/json.h"
#include "erank/base/random.h"

namespace erank::serve {

class MalformedCalls {
 public:
  explicit MalformedCalls(uint64_t seed) : random_(seed) {}

  std::string next_body() {
    const std::string& seed = kSeeds[random_.below(std::size(kSeeds))];
    return random_.below(2) == 0 ? spoiled_bytes(seed) : spoiled_values(seed);
  }
  std::string next_path() { return kPaths[random_.below(std::size(kPaths))]; }

 private:
  std::string spoiled_bytes(std::string text) {
    for (uint64_t i = 1 + random_.below(3); i > 0; --i) {
      const size_t at = random_.below(text.size() + 1), length = random_.below(20);
      switch (random_.below(5)) {
        case 0:
          text.insert(at, kPieces[random_.below(std::size(kPieces))]);
          break;
        case 1:
          text.erase(at, length);
          break;
        case 2:
          text.insert(at, text.substr(random_.below(text.size() + 1), length));
          break;
        case 3:
          text.resize(at);
          break;
        default:
          text.insert(at, 1, static_cast<char>(random_.below(256)));
      }
    }
    return text;
  }
  // One or two values anywhere in it become others; it stays JSON.
  std::string spoiled_values(const std::string& seed) {
    base::Json json = base::Json::parse(seed);
    for (uint64_t i = 1 + random_.below(2); i > 0; --i) {
      base::Json* at = &json;
      while (at->is_structured() && !at->empty() && (at == &json || random_.below(3) > 0)) {
        auto it = at->begin();
        std::advance(it, random_.below(at->size()));
        at = &*it;
      }
      *at = base::Json::parse(kValues[random_.below(std::size(kValues))]);
    }
    return json.dump();
  }

  inline static const std::string kSeeds[] = {
      R"({"model": "m", "query": "q", "documents": ["a", {"text": "b"}], "top_n": 1, "mode": "direct"})",
      R"({"query": "q", "texts": ["a", "b"], "raw_scores": false, "truncate": true, "mode": "direct"})",
      R"({"query": ["q", "r"], "documents": [["a"], ["b", "c"]], "mode": "direct",
          "hybrid": {"scores": [[1], [2, 3]], "weight": 0.5, "method": "minmax"}})",
      R"({"query": "q", "documents": ["a"], "mode": "think", "max_think_tokens": 4, "stream": true})",
      R"({"query": "q", "documents": ["a", "b"], "mode": "direct", "explain_top": 1,
          "max_think_tokens": 2, "deadline_ms": 5000, "return_distribution": true})",
      R"({"query": {"text": "q"}, "passages": [{"title": "t", "body": 5}], "rank_fields": ["title"],
          "instruction": "i", "long_docs": "cut", "score": "expected", "mode": "direct"})",
      R"({"text_1": ["q", "r"], "text_2": ["a", "b"], "mode": "direct"})"};
  inline static const std::string kPieces[] = {"\"",
                                               "{",
                                               "}",
                                               "[",
                                               "]",
                                               ",",
                                               ":",
                                               "\\",
                                               "\\ud800",
                                               "\xff",
                                               std::string(1, '\0'),
                                               "null",
                                               "1e999",
                                               "-",
                                               std::string(600, '['),
                                               std::string(3000, 'x')};
  inline static const char* const kValues[] = {"null",
                                               "true",
                                               "-1",
                                               "1e300",
                                               "0.5",
                                               "18446744073709551615",
                                               "\"\"",
                                               "\"5\"",
                                               "[]",
                                               "{}",
                                               "[null]",
                                               "[[]]",
                                               "[[[\"a\"]]]",
                                               "{\"text\": null}",
                                               "{\"image\": \"x\"}",
                                               "\"\\u0000\"",
                                               "[\"a\", 5, {\"a\": [1]}]",
                                               "\"think\"",
                                               "{\"scores\": [1]}"};
  inline static const char* const kPaths[] = {"/rerank",    "/v1/rerank/", "/v2/rerank",
                                              "/reranking", "/score",      "/v1/score"};
  base::Random random_;
};

}  // namespace erank::serve
