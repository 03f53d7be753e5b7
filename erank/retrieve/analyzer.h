// Text to terms, in three ways; the first as Lucene's EnglishAnalyzer does it, so that BM25 here
// ranks as published baselines.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace erank::retrieve {

// The values are those of the index file.
enum class AnalyzerKind : uint32_t {
  // Words by the word-break rules of UAX #29 (letters, digits and combining marks; "_" joins; one
  // of ' . : between letters and one of ' . , ; between digits joins; each ideograph and each
  // Hiragana sign is a word, and so is a pictograph, as emoji and the copyright sign, with what is
  // joined to it; at most 255 characters, longer words are cut into pieces), the
  // possessive 's taken off, lower case, Lucene's 33 stop words left out, Porter's stemmer with its
  // author's two later departures (bli -> ble, logi -> log; words of one or two letters stay as
  // they are).
  kEnglish = 0,
  // What is between white space, as it is written.
  kWhitespace = 1,
  // Words as above in lower case, nothing left out or stemmed; of ideographs, Hiragana, Katakana
  // and Hangul every two neighbours are a term, one alone is a term itself.
  kUnicode = 2,
};

// "english", "whitespace", "unicode". The first throws Error{kInvalidInput} for another name.
AnalyzerKind parse_analyzer_kind(std::string_view name);
const char* analyzer_name(AnalyzerKind kind);

// Letters, white space and lower case beyond ASCII are those of the system's C.UTF-8 locale. Not
// thread-safe (the stemmer has state): one a thread.
class Analyzer {
 public:
  // Throws Error{kNotFound} when the system has no C.UTF-8 locale.
  explicit Analyzer(AnalyzerKind kind = AnalyzerKind::kEnglish);
  ~Analyzer();
  Analyzer(const Analyzer&) = delete;
  Analyzer& operator=(const Analyzer&) = delete;

  // Calls `take` with each term in text order and the part of `text` that it was made of; the
  // term lives until it returns. Bytes that are no UTF-8 separate words (kWhitespace keeps them).
  using Take = std::function<void(std::string_view term, std::string_view written)>;
  void analyze(std::string_view text, const Take& take);

  std::vector<std::string> analyze(std::string_view text);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace erank::retrieve
