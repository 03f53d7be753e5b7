#include "erank/retrieve/index_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/retrieve/bm25.h"
#include "tests/test_folder.h"

namespace erank::retrieve {
namespace {

std::vector<data::Document> some_documents(int count) {
  base::Random random(3);
  std::vector<data::Document> out;
  for (int i = 0; i < count; ++i) {
    std::string text;
    for (uint64_t n = random.below(80); n > 0; --n)
      text += base::str("w", random.below(1 + random.below(5000)), " ");
    out.push_back({base::str("id-", (i * 7919) % count), text});  // not in the order of the ids
  }
  return out;
}

std::string built(const std::vector<data::Document>& documents, const IndexOptions& options) {
  std::string bytes;
  IndexBuilder builder(options, [&](std::string_view piece) { bytes += piece; });
  for (const auto& document : documents) builder.add(document);
  EXPECT_TRUE(builder.finish());
  return bytes;
}

TEST(IndexBuilder, SpillingMakesNoDifferenceAndLeavesNothing) {
  const TestFolder folder;
  const auto documents = some_documents(20000);
  const std::string plain(Index::build(documents, 1).bytes());
  for (int threads : {1, 3})
    for (size_t most : {size_t{1}, size_t{1} << 20, SIZE_MAX})
      EXPECT_EQ(
          built(documents,
                {.num_threads = threads, .max_posting_bytes = most, .spill_folder = folder.path()}),
          plain)
          << threads << " " << most;
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(IndexBuilder, FindsTheSameInAnyOrderOfDocuments) {
  auto documents = some_documents(3000);
  const Index one = Index::build(documents, 2);
  std::ranges::sort(documents, {}, &data::Document::id);
  const Index two = Index::build(documents, 2);
  for (int i = 0; i < 50; ++i) {
    const auto query = base::str("w", i, " w", i * i);
    const auto a = one.search(query, 30), b = two.search(query, 30);
    ASSERT_EQ(a.size(), b.size());
    for (size_t j = 0; j < a.size(); ++j) {
      EXPECT_EQ(a[j].docid, b[j].docid);
      EXPECT_EQ(a[j].score, b[j].score);
      EXPECT_EQ(one.text(a[j].docid), two.text(a[j].docid));
    }
  }
}

TEST(IndexBuilder, FaultsReachTheCaller) {
  IndexBuilder none({}, [](std::string_view) {});
  EXPECT_THROW(none.finish(), base::Error);
  const auto documents = some_documents(20000);
  EXPECT_THROW(built(documents, {.max_posting_bytes = 1, .spill_folder = "/nowhere/at/all"}),
               base::Error);
  IndexBuilder twice({}, [](std::string_view) {});
  twice.add({"a", "x"});
  twice.add({"a", "y"});
  EXPECT_THROW(twice.finish(), base::InternalError);
  IndexBuilder full({}, [n = 0](std::string_view) mutable {
    if (++n > 100) base::fail(base::ErrorKind::kExhausted, "test", "the disk is full");
  });
  EXPECT_THROW(
      {
        for (const auto& document : documents) full.add(document);
        full.finish();
      },
      base::Error);
}

TEST(IndexBuilder, StopsWhenAsked) {
  IndexBuilder builder({}, [](std::string_view) {});
  for (const auto& document : some_documents(2000)) builder.add(document);
  EXPECT_FALSE(builder.finish(nullptr, [] { return true; }));
}

}  // namespace
}  // namespace erank::retrieve
