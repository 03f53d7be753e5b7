#include "erank/serve/openapi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "erank/base/json.h"
#include "erank/serve/api.h"
#include "erank/serve/service.h"

namespace erank::serve {
namespace {

using base::Json;
using ::testing::HasSubstr;
using ::testing::Not;

Json document() { return base::parse_json(openapi_json(), "openapi.json"); }

// Every "$ref" in it.
void references(const Json& value, std::set<std::string>& found) {
  if (value.is_object() && value.contains("$ref") && value["$ref"].is_string())
    found.insert(value["$ref"]);
  if (value.is_structured())
    for (const Json& inner : value) references(inner, found);
}

TEST(OpenApi, ListsTheRoutesThatThereAre) {
  Service service({});
  for (const char* of_the_verb : {"/", "/metrics"})
    service.add_route(of_the_verb, [](const HttpRequest&) { return HttpReply{}; });
  std::set<std::pair<std::string, std::string>> described;
  const Json json = document();
  for (const auto& [path, methods] : json["paths"].items())
    for (const auto& [method, operation] : methods.items())
      described.emplace(method == "post" ? "POST" : "GET", path);
  const auto routes = service.routes();
  EXPECT_EQ(described,
            (std::set<std::pair<std::string, std::string>>(routes.begin(), routes.end())));
}

TEST(OpenApi, RefersToWhatItHolds) {
  const Json json = document();
  std::set<std::string> found;
  references(json, found);
  EXPECT_GT(found.size(), 10u);
  for (const std::string& reference : found)
    EXPECT_TRUE(json.contains(Json::json_pointer(reference.substr(1)))) << reference;
}

// The fields of the requests are those that are read: a wrong value of each is refused by name,
// but for those that take any value.
TEST(OpenApi, HasTheFieldsThatAreRead) {
  const Json schemas = document()["components"]["schemas"];
  const std::set<std::string> any = {"model", "documents", "texts", "passages", "query"};
  for (const auto& [name, schema] : schemas["RerankRequest"]["properties"].items()) {
    if (any.contains(name)) continue;
    Json body = {{"query", "q"}, {"documents", {"a"}}};
    body[name] = Json::array({Json::array()});
    try {
      parse_call(PostRoute::kRerank, body.dump(), {});
      ADD_FAILURE() << name << " is not read";
    } catch (const ApiError& error) {
      EXPECT_EQ(error.param, name);
    }
    EXPECT_TRUE(schema.contains("description")) << name;
  }
}

TEST(OpenApi, IsServedWithAPageOfIt) {
  const std::string page = openapi_page();
  for (const char* part : {"POST /v1/rerank", "explain_top", "relevance_score", "id=\"Result\"",
                           "<a href=\"#Result\">Result</a>"})
    EXPECT_THAT(page, HasSubstr(part));
  for (const char* part : {"<script", "http://", "https://", "null or", "or anything", "&lt;code"})
    EXPECT_THAT(page, Not(HasSubstr(part)));
}

}  // namespace
}  // namespace erank::serve
