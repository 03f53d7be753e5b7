// What the service says when the engine's thread has ended before its time. The allocator of these
// tests fails once on that thread where no request is to blame.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <thread>

#include "tests/serve/test_client.h"

namespace {
thread_local bool next_allocation_fails = false;
}

// Not inlined: GCC takes free() for what does not belong to new.
__attribute__((noinline)) void* operator new(size_t size) {
  void* memory = std::exchange(next_allocation_fails, false) ? nullptr : std::malloc(size + !size);
  if (!memory) throw std::bad_alloc();
  return memory;
}
__attribute__((noinline)) void operator delete(void* memory) noexcept { std::free(memory); }
__attribute__((noinline)) void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace erank::serve {
namespace {

using ::testing::HasSubstr;

TEST(TinyService, SaysThatItIsToBeStartedAgainWhenItsEngineHasEnded) {
  Service service({});
  const auto reranker = tiny();
  service.set_reranker(reranker, "files");
  EXPECT_EQ(post(service, direct())->reply().status, 200);
  EXPECT_EQ(reranker->stats().fault, "");
  reranker
      ->submit({.query = "q", .passages = {{"1", "text", {}}}, .options = {}},
               {.on_done = [](const rank::Ranking&) { next_allocation_fails = true; }})
      .get();
  const Asked caught = post(service, direct({"new"}));
  EXPECT_EQ(caught->reply().status, 503);
  EXPECT_THAT(caught->json()["message"].get<std::string>(), HasSubstr("has stopped: std::bad_al"));
  EXPECT_EQ(reranker->stats().fault, "the reranker has stopped: std::bad_alloc");
  for (const char* path : {"/ready", "/health", "/ping"}) {
    const Asked probe = ask(service, "GET", path);
    EXPECT_EQ(probe->reply().status, 503) << path;
    EXPECT_THAT(probe->reply().body, HasSubstr("the reranker has stopped: std::bad_alloc"));
  }
  EXPECT_FALSE(service.stats().ready);
  EXPECT_EQ(post(service, direct({"newer"}))->reply().status, 503);
  EXPECT_EQ(post(service, direct())->reply().status, 200);  // what is known needs no engine
}

}  // namespace
}  // namespace erank::serve
