#include "erank/retrieve/bm25.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/retrieve/bm25_file.h"
#include "tests/shared_data.h"
#include "tests/test_folder.h"

namespace erank::retrieve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Bm25 : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return folder_.path(name); }

 private:
  TestFolder folder_;
};

// Not synced: these tests write many files.
void write(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

std::vector<std::string> ids_of(const std::vector<data::Hit>& hits) {
  std::vector<std::string> out;
  for (const auto& hit : hits) out.push_back(hit.docid);
  return out;
}

const std::vector<data::Document> kFleas = {{"d0", "Fleas and ticks bite cats"},
                                            {"d1", "cats cats cats"},
                                            {"d2", ""},
                                            {"d3", "a dog"},
                                            {"d4", "The dog and the dog's flea"}};

TEST_F(Bm25, ScoresAreTheFormulasByHand) {
  const Index index = Index::build(kFleas, 1);
  EXPECT_EQ(index.num_documents(), 5);
  EXPECT_EQ(index.num_terms(), 5);  // flea tick bite cat dog
  EXPECT_EQ(index.num_postings(), 8);
  // Lengths 4, 3, 0, 1, 3: four documents have terms, 11 / 4 on average.
  const auto idf = [](double df) { return std::log(1 + (4 - df + 0.5) / (df + 0.5)); };
  const auto part = [&](double df, double tf, double length) {
    return idf(df) * tf / (tf + 0.9 * (0.6 + 0.4 * length / 2.75));
  };
  const auto hits = index.search("dogs, fleas; dogs?", 10);
  ASSERT_THAT(ids_of(hits), ElementsAre("d4", "d3", "d0"));
  EXPECT_NEAR(hits[0].score, 2 * part(2, 2, 3) + part(2, 1, 3), 1e-6);
  EXPECT_NEAR(hits[1].score, 2 * part(2, 1, 1), 1e-6);
  EXPECT_NEAR(hits[2].score, part(2, 1, 4), 1e-6);
  EXPECT_THAT(ids_of(index.search("dogs, fleas; dogs?", 1)), ElementsAre("d4"));
  EXPECT_TRUE(index.search("the of zebra", 10).empty());
  EXPECT_TRUE(index.search("", 10).empty());
  EXPECT_TRUE(index.search("dog", 0).empty());
}

TEST_F(Bm25, EqualScoresComeInDocumentOrder) {
  std::vector<data::Document> documents;
  for (int i = 0; i < 50; ++i) documents.push_back({std::to_string((i * 37) % 50), "same words"});
  const auto hits = Index::build(documents, 2).search("words", 10);
  ASSERT_EQ(hits.size(), 10u);
  for (size_t i = 0; i < hits.size(); ++i) EXPECT_EQ(hits[i].docid, documents[i].id);
}

std::vector<data::Document> random_documents(int count) {
  base::Random random(7);
  std::vector<data::Document> out;
  for (int i = 0; i < count; ++i) {
    std::string text;
    for (uint64_t n = random.below(60); n > 0; --n)
      text += base::str("w", random.below(1 + random.below(400)), " ");
    out.push_back({"doc" + std::to_string(i), text});
  }
  return out;
}

TEST_F(Bm25, FilesAndResultsDoNotDependOnThreads) {
  const auto documents = random_documents(500);
  base::write_file_atomic(path("one"), Index::build(documents, 1).bytes());
  base::write_file_atomic(path("seven"), Index::build(documents, 7).bytes());
  EXPECT_EQ(base::read_file(path("one")), base::read_file(path("seven")));
  std::vector<data::Query> queries;
  for (int i = 0; i < 40; ++i)
    queries.push_back({std::to_string(i), base::str("w", i, " w", 3 * i)});
  const Index built = Index::build(documents, 3);
  const Index opened = Index::open(path("one"));
  const auto one = built.search_all(queries, 20, 1);
  const auto four = opened.search_all(queries, 20, 4);
  ASSERT_EQ(one.size(), 40u);
  for (size_t i = 0; i < one.size(); ++i) {
    const auto alone = built.search(queries[i].text, 20);
    ASSERT_EQ(ids_of(one[i]), ids_of(four[i]));
    ASSERT_EQ(ids_of(one[i]), ids_of(alone));
    EXPECT_FALSE(alone.empty());
    for (size_t j = 0; j < alone.size(); ++j) {
      EXPECT_EQ(one[i][j].score, four[i][j].score);
      EXPECT_EQ(one[i][j].score, alone[j].score);
    }
  }
}

TEST_F(Bm25, AnIndexWithoutAnyTermFindsNothing) {
  base::write_file_atomic(
      path("i"), Index::build(std::vector<data::Document>{{"a", "the"}, {"b", ""}}, 2).bytes());
  const Index index = Index::open(path("i"));
  EXPECT_EQ(index.num_terms(), 0);
  EXPECT_TRUE(index.search("the word", 5).empty());
  EXPECT_THROW(Index::build({}, 1), base::Error);
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

// The message of the Error that opening throws, or "".
std::string open_error(const std::string& path) {
  try {
    Index::open(path);
  } catch (const base::Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(base::ErrorKind::kCorrupt));
    return error.what();
  }
  return "";
}

TEST_F(Bm25, TruncatedFilesAreRefusedAtEveryLength) {
  base::write_file_atomic(path("good"), Index::build(kFleas, 1).bytes());
  const std::string good = base::read_file(path("good"));
  ASSERT_EQ(open_error(path("good")), "");
  for (size_t size = 0; size < good.size(); ++size) {
    write(path("cut"), good.substr(0, size));
    ASSERT_NE(open_error(path("cut")), "") << size;
    if (size > 140) size += 6;
  }
  write(path("long"), good + std::string(8, '\0'));
  EXPECT_THAT(open_error(path("long")), HasSubstr("expected"));
}

TEST_F(Bm25, AnyFlippedBitIsNoticed) {
  base::write_file_atomic(path("good"), Index::build(kFleas, 1).bytes());
  const std::string good = base::read_file(path("good"));
  // Behind these come two totals, where any plausible value passes, and the header's unused rest.
  constexpr size_t kFirstFree = offsetof(FileHeader, num_with_terms);
  for (size_t i = 0; i < good.size(); ++i) {
    if (i == kFirstFree) i = sizeof(FileHeader);
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    write(path("bad"), bad);
    ASSERT_NE(open_error(path("bad")), "") << i;
  }
}

TEST_F(Bm25, HostileArraysBehindARightChecksumAreRefused) {
  base::write_file_atomic(path("good"), Index::build(kFleas, 1).bytes());
  const std::string good = base::read_file(path("good"));
  base::Random random(11);
  int num_refused = 0, num_opened = 0;
  for (int round = 0; round < 600; ++round) {
    std::string bad = good;
    for (uint64_t n = 1 + random.below(3); n > 0; --n) {
      const size_t at = 24 + random.below(bad.size() - 24);
      static constexpr std::array<char, 5> kBytes = {0, 1, 2, '\x7f', '\xff'};
      bad[at] = kBytes[random.below(kBytes.size())];
    }
    FileHeader header;
    std::memcpy(&header, bad.data(), sizeof header);
    header.checksum = checksum_of(
        {reinterpret_cast<const uint8_t*>(bad.data()) + sizeof header, bad.size() - sizeof header});
    std::memcpy(bad.data(), &header, sizeof header);
    write(path("bad"), bad);
    if (open_error(path("bad")).empty()) {
      ++num_opened;  // then it must work
      Index::open(path("bad")).search("dogs and fleas", 10);
    } else {
      ++num_refused;
    }
  }
  EXPECT_GT(num_refused, 200);
  EXPECT_GT(num_opened, 10);
}

TEST_F(Bm25, OtherFilesAndVersionsAreNamed) {
  write(path("text"), std::string(300, 'x'));
  EXPECT_THAT(open_error(path("text")), HasSubstr("is not an index"));
  base::write_file_atomic(path("good"), Index::build(kFleas, 1).bytes());
  std::string newer = base::read_file(path("good"));
  newer[8] = 9;
  write(path("newer"), newer);
  EXPECT_THAT(open_error(path("newer")), HasSubstr("version 9, expected 1"));
  EXPECT_THROW(Index::open(path("none")), base::Error);
}

// ---- the published figures ----------------------------------------------------------------

std::string unpacked(const std::string& packed, const std::string& to) {
  const std::string command = "xz -dc '" + packed + "' > '" + to + "'";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
  return to;
}

// trec_eval's nDCG@10 in the order of the hits, averaged over the judged queries (-c): gain =
// grade.
double ndcg_at_10(const data::Qrels& qrels, const std::vector<data::Query>& queries,
                  const std::vector<std::vector<data::Hit>>& results) {
  double sum = 0;
  for (size_t q = 0; q < queries.size(); ++q) {
    const auto grades = qrels.grades.find(queries[q].id);
    if (grades == qrels.grades.end()) continue;
    double dcg = 0, ideal = 0;
    for (size_t i = 0; i < std::min<size_t>(10, results[q].size()); ++i)
      if (const auto it = grades->second.find(results[q][i].docid);
          it != grades->second.end() && it->second > 0)
        dcg += static_cast<double>(it->second) / std::log2(i + 2.0);
    std::vector<int64_t> best;
    for (const auto& [docid, grade] : grades->second) best.push_back(grade);
    std::ranges::sort(best, std::greater<>());
    for (size_t i = 0; i < std::min<size_t>(10, best.size()); ++i)
      if (best[i] > 0) ideal += static_cast<double>(best[i]) / std::log2(i + 2.0);
    if (ideal > 0) sum += dcg / ideal;
  }
  return sum / static_cast<double>(qrels.qids.size());
}

struct Baseline {
  const char* collection;
  const char* qrels;
  bool queries_are_packed;
  double ndcg;
};

class Baselines : public Bm25, public ::testing::WithParamInterface<Baseline> {};

TEST_P(Baselines, AreReachedWithin3Thousandths) {
  const Baseline& baseline = GetParam();
  const auto folder = erank::testing::shared_data(baseline.collection);
  if (folder.empty()) GTEST_SKIP() << baseline.collection << " is not here";
  const auto corpus = unpacked(folder + "/corpus.jsonl.xz", path("corpus.jsonl"));
  const auto queries = data::read_queries(
      baseline.queries_are_packed ? unpacked(folder + "/queries.jsonl.xz", path("queries.jsonl"))
                                  : folder + "/queries.jsonl");
  const auto index = Index::build(data::read_documents(corpus), 2);
  const double ndcg = ndcg_at_10(data::read_qrels(folder + "/" + baseline.qrels), queries,
                                 index.search_all(queries, 100, 2));
  std::printf("%s: nDCG@10 %.4f, published %.4f\n", baseline.collection, ndcg, baseline.ndcg);
  EXPECT_NEAR(ndcg, baseline.ndcg, 0.003);
}

INSTANTIATE_TEST_SUITE_P(
    Published, Baselines,
    ::testing::Values(Baseline{"beir/nfcorpus", "qrels/test.tsv", true, 0.3218},
                      Baseline{"glasgow/cranfield", "qrels.txt", false, 0.3514},
                      Baseline{"glasgow/npl", "qrels.txt", false, 0.4378},
                      Baseline{"glasgow/cacm", "qrels.txt", false, 0.4772},
                      Baseline{"glasgow/adi", "qrels.txt", false, 0.4737},
                      Baseline{"msmarco-small", "qrels.tsv", true, 0.9284}),
    [](const auto& info) {
      std::string name = info.param.collection;
      std::erase_if(name, [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); });
      return name;
    });

}  // namespace
}  // namespace erank::retrieve
