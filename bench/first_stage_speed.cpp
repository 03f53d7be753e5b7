// How long the first stage takes for a corpus of the size of MS MARCO's passages, made up here: its
// number of words a passage and, of each word, how many passages have it are like those of English.
//   first_stage_speed passages N [SEED]        N passages as JSON lines, for `erank index --corpus
//   -` first_stage_speed queries N [SEED]         N queries, each words of one such passage
//   first_stage_speed search INDEX QUERIES TOP milliseconds of each query, one at a time
//   first_stage_speed                          all of it with 100,000 passages in memory
// Prints a line of JSON a measurement.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "erank/base/error.h"
#include "erank/base/random.h"
#include "erank/data/records.h"
#include "erank/retrieve/bm25.h"

namespace {

using namespace erank;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Syllables, the shorter the more frequent the word is, and a consonant, so that stems differ.
void append_word(std::string& out, uint64_t rank) {
  static constexpr char kConsonants[] = "bdfgklmnprtvz", kVowels[] = "aiou";
  constexpr uint64_t kNum = 13 * 4;
  for (uint64_t i = rank;; i = i / kNum - 1) {
    out += kConsonants[i % kNum / 4];
    out += kVowels[i % 4];
    if (i < kNum) break;
  }
  out += kConsonants[rank % 13];
}

// Passage number `i`: about 56 words of which 0.36 are the most frequent ones of English, the
// others by Zipf's law, some of them again and again; one in 500 is a number that hardly recurs.
class Passages {
 public:
  explicit Passages(uint64_t seed) : seed_(seed) {}

  std::vector<std::string> words(uint64_t i) const {
    static constexpr const char* kStops[] = {"the", "of", "a",   "to", "and",
                                             "is",  "in", "for", "or"};
    constexpr double kFirst = 10, kWords = 3e6;  // the chance of rank r is as 1 / (r + kFirst)
    base::Random random(base::derived_seed(seed_, i));
    const int length =
        std::clamp(static_cast<int>(std::lround(std::exp(3.95 + 0.4 * random.normal()))), 5, 300);
    std::vector<std::string> out, content;
    for (int w = 0; w < length; ++w) {
      const double kind = random.uniform();
      if (kind < 0.36) {
        out.emplace_back(kStops[random.below(std::size(kStops))]);
        continue;
      }
      if (kind < 0.45 && !content.empty()) {
        out.push_back(content[random.below(content.size())]);
        continue;
      }
      std::string word;
      if (kind > 0.998) {
        word = std::to_string(random.below(10'000'000));
      } else {
        const double rank =
            kFirst * std::pow((kWords + kFirst) / kFirst, random.uniform()) - kFirst;
        append_word(word, static_cast<uint64_t>(rank));
      }
      content.push_back(word);
      out.push_back(std::move(word));
    }
    return out;
  }

  std::string text(uint64_t i) const {
    std::string out;
    for (const auto& word : words(i)) out += (out.empty() ? "" : " ") + word;
    return out;
  }

  // 2 to 6 different words of a passage, without the most frequent ones.
  std::string query(uint64_t i) const {
    base::Random random(base::derived_seed(seed_ + 1, i));
    std::vector<std::string> chosen;
    const size_t length = 2 + random.below(5);
    const auto from = words(random.below(1'000'000));
    for (int tries = 0; chosen.size() < length && tries < 100; ++tries) {
      const auto& word = from[random.below(from.size())];
      if (word.size() > 3 && std::ranges::find(chosen, word) == chosen.end())
        chosen.push_back(word);
    }
    std::string out;
    for (const auto& word : chosen) out += (out.empty() ? "" : " ") + word;
    return out;
  }

 private:
  uint64_t seed_;
};

void measure_search(const retrieve::Index& index, const std::vector<data::Query>& queries,
                    int top) {
  index.search(queries.at(0).text, top);
  std::vector<double> times;
  size_t num_hits = 0;
  for (const auto& query : queries) {
    const auto begin = Clock::now();
    num_hits += index.search(query.text, top).size();
    times.push_back(1e3 * seconds_since(begin));
  }
  std::ranges::sort(times);
  double sum = 0;
  for (double t : times) sum += t;
  const auto at = [&](double share) {
    return times[static_cast<size_t>(share * static_cast<double>(times.size() - 1))];
  };
  std::printf(
      "{\"what\": \"search\", \"documents\": %lld, \"queries\": %zu, \"top\": %d, \"hits\": %zu, "
      "\"mean_ms\": %.3f, \"median_ms\": %.3f, \"p95_ms\": %.3f, \"worst_ms\": %.3f}\n",
      static_cast<long long>(index.num_documents()), queries.size(), top, num_hits,
      sum / static_cast<double>(times.size()), at(0.5), at(0.95), times.back());
}

std::vector<data::Query> some_queries(const Passages& passages, uint64_t count) {
  std::vector<data::Query> queries;
  for (uint64_t i = 0; i < count; ++i) queries.push_back({std::to_string(i), passages.query(i)});
  return queries;
}

void measure_small() {
  const Passages passages(1);
  std::vector<data::Document> documents;
  for (uint64_t i = 0; i < 100'000; ++i) documents.push_back({std::to_string(i), passages.text(i)});
  const auto begin = Clock::now();
  const auto index = retrieve::Index::build(documents, 2);
  std::printf(
      "{\"what\": \"index\", \"documents\": %zu, \"terms\": %lld, \"postings\": %lld, "
      "\"threads\": 2, \"seconds\": %.2f}\n",
      documents.size(), static_cast<long long>(index.num_terms()),
      static_cast<long long>(index.num_postings()), seconds_since(begin));
  for (int top : {10, 1000}) measure_search(index, some_queries(passages, 200), top);
}

void write_lines(const std::string& what, uint64_t count, uint64_t seed) {
  const Passages passages(seed);
  std::string line;
  for (uint64_t i = 0; i < count; ++i) {
    line = "{\"_id\": \"" + std::to_string(i) + "\", \"text\": \"" +
           (what == "queries" ? passages.query(i) : passages.text(i)) + "\"}\n";
    std::fwrite(line.data(), 1, line.size(), stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  try {
    if (argc == 1) {
      measure_small();
    } else if ((what == "passages" || what == "queries") && (argc == 3 || argc == 4)) {
      write_lines(what, std::strtoull(argv[2], nullptr, 10),
                  argc == 4 ? std::strtoull(argv[3], nullptr, 10) : 1);
    } else if (what == "search" && argc == 5) {
      measure_search(retrieve::Index::open(argv[2]), data::read_queries(argv[3]),
                     std::atoi(argv[4]));
    } else {
      std::fprintf(stderr,
                   "first_stage_speed: see the first lines of bench/first_stage_speed.cpp\n");
      return 2;
    }
  } catch (const base::Error& error) {
    std::fprintf(stderr, "first_stage_speed: %s\n", error.what());
    return 2;
  }
  return 0;
}
