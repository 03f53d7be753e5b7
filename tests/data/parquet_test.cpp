// The module is built where tools/setup --parquet has put its libraries, as --tests does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/json.h"
#include "erank/data/records.h"
#include "erank/data/source.h"
#include "tests/test_folder.h"

namespace erank::data {
namespace {

using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

const std::string kGolden = std::string(ERANK_SOURCE_DIR) + "/tests/golden/rows.";

class Parquet : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!base::file_exists(std::string(ERANK_BINARY_DIR) + "/erank_parquet.so"))
      GTEST_SKIP() << "this build has no Parquet reader (tools/setup --parquet)";
  }
};

std::string all_of(const std::string& path) {
  ByteSource source(path);
  std::string out;
  for (std::string_view piece = source.next(); !piece.empty(); piece = source.next()) {
    EXPECT_LE(piece.size(), size_t{1} << 18);
    out += piece;
  }
  return out;
}

std::vector<base::OrderedJson> values_of(const std::string& lines) {
  std::vector<base::OrderedJson> out;
  for (size_t begin = 0, end; begin < lines.size(); begin = end + 1) {
    end = lines.find('\n', begin);
    out.push_back(base::OrderedJson::parse(lines.substr(begin, end - begin)));
  }
  return out;
}

TEST_F(Parquet, RowsAreJsonLines) {
  const auto rows = values_of(all_of(kGolden + "parquet"));
  const auto expected = values_of(base::read_file(kGolden + "jsonl"));
  ASSERT_EQ(rows.size(), 300u);
  for (size_t i = 0; i < rows.size(); ++i)
    EXPECT_EQ(base::dump_json(rows[i]), base::dump_json(expected[i])) << i;
}

TEST_F(Parquet, PartsAreReadAfterTheFirst) {
  const TestFolder folder;
  const std::string rows = base::read_file(kGolden + "parquet");
  const auto first = folder.write("train-00000-of-00002.parquet", rows);
  EXPECT_THAT([&] { all_of(first); },
              ThrowsMessage<base::Error>(HasSubstr("train-00001-of-00002.parquet is not there")));
  folder.write("train-00001-of-00002.parquet", rows);
  const std::string lines = all_of(kGolden + "parquet");
  EXPECT_EQ(all_of(first), lines + lines);
  EXPECT_EQ(all_of(folder.path("train-00001-of-00002.parquet")), lines);
}

TEST_F(Parquet, IsReadWhereverJsonLinesAre) {
  const TestFolder folder;
  // The ending is not looked at.
  const auto path = folder.write("docs", base::read_file(kGolden + "parquet"));
  const auto documents = read_documents(path);
  ASSERT_EQ(documents.size(), 300u);
  EXPECT_EQ(documents[1].id, "d1");
  EXPECT_THAT(documents[1].text, HasSubstr("Text 1 \u00e4\u6f22"));
}

TEST_F(Parquet, BytesThatAreNoTextAreRefusedWithTheirRow) {
  try {
    all_of(std::string(ERANK_SOURCE_DIR) + "/tests/golden/bytes.parquet");
    ADD_FAILURE();
  } catch (const base::Error& e) {
    EXPECT_EQ(e.kind(), base::ErrorKind::kInvalidInput);
    EXPECT_THAT(e.what(), HasSubstr("not UTF-8"));
    EXPECT_THAT(e.what(), HasSubstr("bytes.parquet, row 2, column raw"));
  }
}

TEST_F(Parquet, AFolderMayHoldIt) {
  const TestFolder folder;
  folder.write("corpus.parquet", base::read_file(kGolden + "parquet"));
  EXPECT_EQ(find_beir(folder.path()).corpus, folder.path("corpus.parquet"));
}

TEST_F(Parquet, DamagedFilesAreNamed) {
  const TestFolder folder;
  const auto whole = base::read_file(kGolden + "parquet");
  for (const size_t size : {size_t{6}, whole.size() / 2, whole.size() - 4}) {
    const auto path = folder.write("cut", whole.substr(0, size));
    try {
      all_of(path);
      ADD_FAILURE() << size;
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), base::ErrorKind::kCorrupt);
      EXPECT_THAT(e.what(), HasSubstr("cut: "));
    }
  }
  for (size_t i = 100; i < whole.size(); i += whole.size() / 40) {
    std::string damaged = whole;
    for (size_t j = i; j < std::min(i + 20, whole.size()); ++j) damaged[j] = '\x5a';
    const auto path = folder.write("damaged", damaged);
    try {
      all_of(path);  // what no checksum covers may be read as another value
    } catch (const base::Error& e) {
      EXPECT_EQ(e.kind(), base::ErrorKind::kCorrupt);
    }
  }
}

}  // namespace
}  // namespace erank::data
