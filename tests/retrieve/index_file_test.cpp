#include "erank/retrieve/index_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <fstream>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/retrieve/bm25.h"
#include "tests/test_folder.h"

namespace erank::retrieve {
namespace {

using ::testing::HasSubstr;

class IndexFile : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_.path(name); }
  // Not synced: these tests write many files.
  std::string put(const std::string& name, std::string_view bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }

 private:
  TestFolder folder_;
};

const std::vector<data::Document> kFleas = {{"d0", "Fleas and ticks bite cats"},
                                            {"d1", "cats cats cats"},
                                            {"d2", ""},
                                            {"d3", "a dog"},
                                            {"d4", "The dog and the dog's flea"}};

std::string fleas() { return std::string(Index::build(kFleas, 1).bytes()); }

// What opening and using all of a file finds wrong with it, or "".
std::string fault_of(const std::string& path) {
  try {
    const Index index = Index::open(path);
    index.search("dogs, fleas; dogs?", 10);
    index.search("ticks bite cats", 10);
    for (const auto& document : kFleas) index.text(document.id);
  } catch (const base::Error& error) {
    EXPECT_TRUE(error.kind() == base::ErrorKind::kCorrupt ||
                error.kind() == base::ErrorKind::kNotFound);  // an id that is there no more
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos);
    return error.what();
  }
  return "";
}

TEST(LengthScale, IsExactUpTo40AndThenCoarse) {
  for (uint32_t length = 0; length <= 40; ++length)
    EXPECT_EQ(length_of_code(length_code(length)), length);
  EXPECT_EQ(length_of_code(length_code(41)), 40u);
  EXPECT_EQ(length_of_code(length_code(100)), 96u);
  EXPECT_EQ(length_code(0x7fffffff), 255);
  for (int code = 1; code < 256; ++code) {
    const auto byte = static_cast<uint8_t>(code);
    EXPECT_EQ(length_code(length_of_code(byte)), byte);
    EXPECT_EQ(length_code(length_of_code(byte) - 1), byte - 1);
  }
}

TEST_F(IndexFile, CutOffAnywhereIsRefused) {
  const std::string good = fleas();
  ASSERT_EQ(fault_of(put("good", good)), "");
  for (size_t size = 0; size < good.size(); ++size)
    ASSERT_NE(fault_of(put("cut", good.substr(0, size))), "") << size;
  EXPECT_THAT(fault_of(put("long", good + std::string(8, '\0'))), HasSubstr("not complete"));
}

TEST_F(IndexFile, AnyFlippedBitIsNoticed) {
  const std::string good = fleas();
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    ASSERT_NE(fault_of(put("bad", bad)), "") << i;
  }
}

TEST_F(IndexFile, DamageIsFoundWhenItIsUsedAndNotBefore) {
  std::vector<data::Document> documents;
  for (int i = 0; i < 3000; ++i)
    documents.push_back(
        {std::to_string(i), base::str("word", i, " of a text that is long enough")});
  std::string bytes(Index::build(documents, 2).bytes());
  ASSERT_GT(bytes.size(), 8 * kChunkBytes);
  bytes[2 * kChunkBytes + 5] ^= 1;  // among the texts
  const Index index = Index::open(put("bad", bytes));
  EXPECT_EQ(index.search("word77", 5).at(0).docid, "77");
  int num_damaged = 0;
  for (const auto& document : documents) {
    try {
      EXPECT_EQ(index.text(document.id), document.text);
    } catch (const base::Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("is damaged (the checksum of bytes 32768 to 49152"));
      ++num_damaged;
    }
  }
  EXPECT_GT(num_damaged, 100);
  EXPECT_LT(num_damaged, 1000);
}

// Sets the checksums of bytes that were changed, so that only what they say can be refused.
void set_checksums(std::string& bytes) {
  const auto span = [&](size_t begin, size_t size) {
    return std::span(reinterpret_cast<const uint8_t*>(bytes.data()) + begin, size);
  };
  FileEnd end;
  const size_t end_at = bytes.size() - sizeof end;
  std::memcpy(&end, bytes.data() + end_at, sizeof end);
  const SectionPlace table = end.sections[kChecksums];
  if (table.offset < end_at && table.bytes <= end_at - table.offset) {
    for (uint64_t i = 0; i < table.bytes / 8 && i * kChunkBytes < table.offset; ++i) {
      const uint64_t sum = checksum_of(
          span(i * kChunkBytes, std::min<uint64_t>(kChunkBytes, table.offset - i * kChunkBytes)));
      std::memcpy(bytes.data() + table.offset + i * 8, &sum, 8);
    }
    end.table_checksum = checksum_of(span(table.offset, table.bytes));
  }
  end.checksum = checksum_of({reinterpret_cast<const uint8_t*>(&end), offsetof(FileEnd, checksum)});
  std::memcpy(bytes.data() + end_at, &end, sizeof end);
}

TEST_F(IndexFile, HostileContentWithRightChecksumsIsRefusedOrHarmless) {
  const std::string good = fleas();
  std::string same = good;
  set_checksums(same);
  ASSERT_EQ(same, good);
  base::Random random(11);
  int num_refused = 0, num_used = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bad = good;
    for (uint64_t n = 1 + random.below(3); n > 0; --n) {
      static constexpr std::array<char, 6> kBytes = {0, 1, 2, '\x7f', '\x80', '\xff'};
      bad[16 + random.below(bad.size() - 16)] = kBytes[random.below(kBytes.size())];
    }
    set_checksums(bad);
    ++(fault_of(put("bad", bad)).empty() ? num_used : num_refused);
  }
  EXPECT_GT(num_refused, 1000);
  EXPECT_GT(num_used, 100);
}

TEST_F(IndexFile, OtherFilesAndVersionsAreNamed) {
  EXPECT_THAT(fault_of(put("text", std::string(300, 'x'))), HasSubstr("is not an index"));
  std::string old = fleas();
  old[8] = 1;
  EXPECT_THAT(fault_of(put("old", old)),
              HasSubstr("has version 1, expected 2; make the index again with `erank index`"));
  EXPECT_THROW(Index::open(path("none")), base::Error);
}

}  // namespace
}  // namespace erank::retrieve
