// English analysis as Lucene's EnglishAnalyzer does it, so that BM25 here ranks as published
// baselines.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace erank::retrieve {

// Text -> terms: words by the word-break rules of UAX #29 (letters, digits and combining marks; "_"
// joins; one of ' . : between letters and one of ' . , ; between digits joins; each ideograph and
// each Hiragana sign is a word; at most 255 characters, longer words are cut into pieces), the
// possessive 's taken off, lower case, Lucene's 33 stop words left out, Porter's stemmer with its
// author's two later departures (bli -> ble, logi -> log; words of one or two letters stay as they
// are). Letters and their lower case beyond ASCII are those of the system's C.UTF-8 locale. Not
// thread-safe (the stemmer has state): one a thread.
class Analyzer {
 public:
  Analyzer();  // throws Error{kNotFound} when the system has no C.UTF-8 locale
  ~Analyzer();
  Analyzer(const Analyzer&) = delete;
  Analyzer& operator=(const Analyzer&) = delete;

  // Calls `take` with each term in text order; the view lives until it returns. Bytes that are no
  // UTF-8 separate words.
  void analyze(std::string_view text, const std::function<void(std::string_view)>& take);

  std::vector<std::string> analyze(std::string_view text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::retrieve
