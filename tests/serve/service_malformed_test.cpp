// Malformed calls against the whole: sockets, service, engine and a model.
#include <gtest/gtest.h>

#include <map>

#include "tests/serve/malformed_calls.h"
#include "tests/serve/raw_client.h"
#include "tests/serve/running_server.h"
#include "tests/serve/test_client.h"

namespace erank::serve {
namespace {

TEST(TinyService, Survives10000MalformedCalls) {
  Service service({});
  service.set_reranker(tiny(), "files");
  RunningServer server(
      [&](HttpRequest request, std::shared_ptr<Responder> responder) {
        service.handle(std::move(request), std::move(responder));
      },
      {.fault_reply = fault_reply});
  MalformedCalls calls(20251128);
  std::map<int, int> seen;
  RawClient client(server.port());
  for (int i = 0; i < 10000; ++i) {
    const std::string body = calls.next_body();
    const RawReply reply = client.ask(post(calls.next_path(), body));
    ASSERT_TRUE(reply.complete) << i << ": " << body;
    ++seen[reply.status];
    if (reply.status == 200) continue;
    ASSERT_TRUE(reply.status == 400 || reply.status == 413 || reply.status == 422)
        << i << ": " << reply.status << " of " << body << ": " << reply.body;
    const Json json = Json::parse(reply.body, nullptr, false);
    ASSERT_TRUE(json.is_object() && json.contains("error") && json.contains("error_type"))
        << i << ": " << reply.body;
  }
  for (const int status : {200, 400, 422}) EXPECT_GT(seen[status], 100) << status;
  settled(service);
  EXPECT_EQ(client.ask(post("/rerank", base::dump_json(direct()))).status, 200);
}

}  // namespace
}  // namespace erank::serve
