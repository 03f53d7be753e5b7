#include "erank/retrieve/bm25.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/base/random.h"
#include "erank/retrieve/index_file.h"
#include "tests/shared_data.h"
#include "tests/test_folder.h"

namespace erank::retrieve {
namespace {

using ::testing::ElementsAre;

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

// The scores are those of gensim 4.4.0: model = LuceneBM25Model(dictionary=d, k1=0.9, b=0.4), of a
// document the product of model[d.doc2bow(its words)] and model[d.doc2bow(the query's)].
TEST_F(Bm25, ALongQueryMayBeWeightedLikeADocument) {
  const std::vector<data::Document> documents = {{"d0", "red fox red den hill"},
                                                 {"d1", "red hen"},
                                                 {"d2", "fox fox fox hen barn barn hay"},
                                                 {"d3", "barn hay hay hill"},
                                                 {"d4", "den"}};
  const Index index = Index::build(documents, 1, AnalyzerKind::kWhitespace);
  const std::string query = "red fox red red barn zebra hay red den";
  const auto hits = index.search(query, 10, QueryWeights::kBm25);
  ASSERT_THAT(ids_of(hits), ElementsAre("d0", "d2", "d3", "d1", "d4"));
  const double expected[] = {0.7153103227340063, 0.5977170719630653, 0.4023514740488241,
                             0.33459850215641335, 0.20403435693622662};
  for (size_t i = 0; i < hits.size(); ++i) EXPECT_NEAR(hits[i].score, expected[i], 1e-6);
  const auto all =
      index.search_all(std::vector<data::Query>{{"q", query}}, 2, 1, QueryWeights::kBm25);
  EXPECT_THAT(ids_of(all.at(0)), ElementsAre("d0", "d2"));
  EXPECT_THAT(ids_of(index.search(query, 2)), ElementsAre("d0", "d1"));
}

TEST_F(Bm25, EqualScoresComeInTheByteOrderOfIds) {
  std::vector<data::Document> documents = {{"b", "same words"}, {"B", "same words"}};
  for (int i = 0; i < 50; ++i) documents.push_back({std::to_string((i * 37) % 50), "same words"});
  const auto hits = Index::build(documents, 2).search("words", 100);
  ASSERT_EQ(hits.size(), 52u);
  EXPECT_EQ(hits[1].docid, "1");
  EXPECT_EQ(hits[2].docid, "10");
  EXPECT_EQ(hits[50].docid, "B");
  for (size_t i = 1; i < hits.size(); ++i) {
    EXPECT_LT(hits[i - 1].docid, hits[i].docid);
    EXPECT_EQ(hits[i - 1].score, hits[i].score);
  }
  std::ranges::reverse(documents);
  EXPECT_EQ(ids_of(Index::build(documents, 1).search("words", 100)), ids_of(hits));
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
  write(path("one"), Index::build(documents, 1).bytes());
  write(path("seven"), Index::build(documents, 7).bytes());
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
  write(path("i"), Index::build(std::vector<data::Document>{{"a", "the"}, {"b", ""}}, 2).bytes());
  const Index index = Index::open(path("i"));
  EXPECT_EQ(index.num_terms(), 0);
  EXPECT_TRUE(index.search("the word", 5).empty());
  EXPECT_EQ(index.text("a"), "the");
  EXPECT_THROW(Index::build({}, 1), base::Error);
}

TEST_F(Bm25, KeepsTheTexts) {
  const Index index = Index::build(kFleas, 2);
  for (const auto& document : kFleas) EXPECT_EQ(index.text(document.id), document.text);
  EXPECT_THROW(index.text("d"), base::Error);
  EXPECT_THROW(index.text("e"), base::Error);
}

// ---- all documents looked at --------------------------------------------------------------

// A corpus of single words, w0 the most frequent, and what is known of it without an index.
struct Plain {
  std::vector<data::Document> documents;  // in the order of their ids
  std::vector<std::map<int, float>> counts;
  std::vector<float> lengths;
  std::map<int, int> frequency;
  float average = 0;

  Plain(base::Random& random, int num_documents, int num_words, int longest) {
    int64_t total = 0, with_terms = 0;
    for (int d = 0; d < num_documents; ++d) {
      std::string text;
      auto& count = counts.emplace_back();
      const auto length = static_cast<int>(random.below(static_cast<uint64_t>(longest) + 1));
      for (int i = 0; i < length; ++i) {
        // The product of two draws: few words are frequent, many are rare.
        const auto word =
            static_cast<int>(random.below(1 + random.below(static_cast<uint64_t>(num_words))));
        text += base::str("w", word, " ");
        ++count[word];
      }
      char id[16];
      std::snprintf(id, sizeof id, "d%07d", d);
      documents.push_back({id, text});
      for (const auto& [word, n] : count) ++frequency[word];
      lengths.push_back(
          static_cast<float>(length_of_code(length_code(static_cast<uint32_t>(length)))));
      total += length;
      with_terms += length > 0;
    }
    num_with_terms = static_cast<double>(with_terms);
    average = static_cast<float>(static_cast<double>(total) / num_with_terms);
  }

  std::vector<data::Hit> best(const std::vector<int>& words, size_t top) const {
    std::vector<data::Hit> hits;
    std::vector<std::pair<int, float>> query;
    for (int word : words) {
      const auto known = std::ranges::find(query, word, &std::pair<int, float>::first);
      if (known == query.end()) {
        query.emplace_back(word, 1.0f);
      } else {
        ++known->second;
      }
    }
    for (size_t d = 0; d < documents.size(); ++d) {
      double sum = 0;
      for (const auto& [word, times] : query) {
        const auto found = counts[d].find(word);
        if (found == counts[d].end()) continue;
        const double df = frequency.at(word);
        const float weight =
            times * static_cast<float>(std::log(1 + (num_with_terms - df + 0.5) / (df + 0.5)));
        const float norm = 1.0f / (0.9f * ((1 - 0.4f) + 0.4f * lengths[d] / average));
        sum += weight - weight / (1 + found->second * norm);
      }
      if (static_cast<float>(sum) > 0) hits.push_back({documents[d].id, static_cast<float>(sum)});
    }
    std::ranges::stable_sort(hits, std::greater<>(), &data::Hit::score);
    hits.resize(std::min(hits.size(), top));
    return hits;
  }

  double num_with_terms = 0;
};

TEST_F(Bm25, FindsWhatLookingAtAllDocumentsFinds) {
  struct Shape {
    int num_documents, num_words, longest;
  };
  int num_hits = 0;
  for (const Shape& shape : {Shape{40, 10, 5}, Shape{3000, 200, 30}, Shape{4097, 3, 4},
                             Shape{30000, 3000, 12}, Shape{50000, 40, 3}}) {
    base::Random random(static_cast<uint64_t>(shape.num_documents));
    const Plain plain(random, shape.num_documents, shape.num_words, shape.longest);
    const Index index = Index::build(plain.documents, 2);
    for (int round = 0; round < 40; ++round) {
      std::vector<int> words;
      std::string query;
      for (uint64_t n = 1 + random.below(8); n > 0; --n) {
        words.push_back(static_cast<int>(
            random.below(1 + random.below(static_cast<uint64_t>(shape.num_words)))));
        query += base::str(" w", words.back());
      }
      static constexpr std::array<int, 5> kTops = {1, 3, 10, 100, 100000};
      const int top = kTops[random.below(kTops.size())];
      const auto expected = plain.best(words, static_cast<size_t>(top));
      const auto hits = index.search(query, top);
      ASSERT_EQ(ids_of(hits), ids_of(expected)) << shape.num_documents << query << " " << top;
      for (size_t i = 0; i < hits.size(); ++i) ASSERT_EQ(hits[i].score, expected[i].score) << query;
      num_hits += static_cast<int>(hits.size());
    }
  }
  EXPECT_GT(num_hits, 100000);
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

// trec_eval's recall.100, averaged in the same way.
double recall_at_100(const data::Qrels& qrels, const std::vector<data::Query>& queries,
                     const std::vector<std::vector<data::Hit>>& results) {
  double sum = 0;
  for (size_t q = 0; q < queries.size(); ++q) {
    const auto grades = qrels.grades.find(queries[q].id);
    if (grades == qrels.grades.end()) continue;
    double found = 0, relevant = 0;
    for (const auto& [docid, grade] : grades->second) relevant += grade > 0;
    for (size_t i = 0; i < std::min<size_t>(100, results[q].size()); ++i)
      if (const auto it = grades->second.find(results[q][i].docid); it != grades->second.end())
        found += it->second > 0;
    if (relevant > 0) sum += found / relevant;
  }
  return sum / static_cast<double>(qrels.qids.size());
}

struct Baseline {
  const char* collection;
  const char* qrels;
  bool queries_are_packed;
  double ndcg, ndcg_tolerance = 0.003;
  double recall = -1;  // -1: not published
};

class Baselines : public Bm25, public ::testing::WithParamInterface<Baseline> {};

TEST_P(Baselines, AreReached) {
  const Baseline& baseline = GetParam();
  const auto folder = erank::testing::shared_data(baseline.collection);
  if (folder.empty()) GTEST_SKIP() << baseline.collection << " is not here";
  const auto corpus = unpacked(folder + "/corpus.jsonl.xz", path("corpus.jsonl"));
  const auto queries = data::read_queries(
      baseline.queries_are_packed ? unpacked(folder + "/queries.jsonl.xz", path("queries.jsonl"))
                                  : folder + "/queries.jsonl");
  const auto index = Index::build(data::read_documents(corpus), 2);
  const auto qrels = data::read_qrels(folder + "/" + baseline.qrels);
  const auto results = index.search_all(queries, 100, 2);
  const double ndcg = ndcg_at_10(qrels, queries, results);
  const double recall = recall_at_100(qrels, queries, results);
  std::printf("%s: nDCG@10 %.4f, published %.4f; R@100 %.4f\n", baseline.collection, ndcg,
              baseline.ndcg, recall);
  EXPECT_NEAR(ndcg, baseline.ndcg, baseline.ndcg_tolerance);
  if (baseline.recall >= 0) {
    EXPECT_NEAR(recall, baseline.recall, 0.0005);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Published, Baselines,
    ::testing::Values(Baseline{"beir/nfcorpus", "qrels/test.tsv", true, 0.3218, 0.0005, 0.2457},
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
