#include "erank/retrieve/analyzer.h"

#include <libstemmer.h>
#include <locale.h>
#include <wctype.h>

#include <algorithm>
#include <array>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/retrieve/unicode_marks.h"

namespace erank::retrieve {
namespace {

constexpr std::array<std::string_view, 33> kStopWords = {
    "a",   "an",    "and",  "are",   "as",    "at",   "be",   "but", "by",  "for",  "if",
    "in",  "into",  "is",   "it",    "no",    "not",  "of",   "on",  "or",  "such", "that",
    "the", "their", "then", "there", "these", "they", "this", "to",  "was", "will", "with"};
static_assert(std::ranges::is_sorted(kStopWords));

constexpr int kMaxWordChars = 255;

// What UAX #29 calls a character's word-break property, as far as it matters here.
enum class Class : uint8_t {
  kOther,
  kLetter,
  kDigit,
  kJoiner,      // ExtendNumLet
  kMidLetter,   // joins letters
  kMidNum,      // joins digits
  kMidBoth,     // joins letters, and joins digits
  kMark,        // belongs to the character before it
  kAlone,       // a word by itself: ideographs, Hiragana
  kPictograph,  // a word with what is joined to it: emoji, (c), (r)
  kNeighbour,   // a term with its neighbour: those, Katakana, Hangul
};

Class class_of_ascii(char32_t c) {
  if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return Class::kLetter;
  if (c >= '0' && c <= '9') return Class::kDigit;
  switch (c) {
    case '_':
      return Class::kJoiner;
    case ':':
      return Class::kMidLetter;
    case ',':
    case ';':
      return Class::kMidNum;
    case '.':
    case '\'':
      return Class::kMidBoth;
    default:
      return Class::kOther;
  }
}

bool is_between(char32_t c, char32_t first, char32_t last) { return c >= first && c <= last; }

bool is_in(const auto& ranges, char32_t c) {
  const auto range = std::ranges::lower_bound(ranges, c, {}, &CharacterRange::last);
  return range != ranges.end() && c >= range->first;
}

Class class_of(char32_t c, locale_t locale) {
  if (c < 0x80) return class_of_ascii(c);
  switch (c) {
    case 0x2018:
    case 0x2019:
    case 0x2024:
    case 0xfe52:
    case 0xff07:
    case 0xff0e:
      return Class::kMidBoth;
    case 0xb7:
    case 0x387:
    case 0x55f:
    case 0x5f4:
    case 0x2027:
    case 0xfe13:
    case 0xfe55:
    case 0xff1a:
      return Class::kMidLetter;
    case 0x37e:
    case 0x589:
    case 0x60c:
    case 0x60d:
    case 0x66c:
    case 0x7f8:
    case 0x2044:
    case 0xfe10:
    case 0xfe14:
    case 0xff0c:
    case 0xff1b:
      return Class::kMidNum;
    case 0x203f:
    case 0x2040:
    case 0x2054:
    case 0xff3f:
      return Class::kJoiner;
    case 0xad:
    case 0x200d:
      return Class::kMark;
    default:
      break;
  }
  if (is_in(kMarks, c) || is_between(c, 0x1f3fb, 0x1f3ff)) return Class::kMark;
  if (is_between(c, 0x3041, 0x309f) || c == 0x3005 || c == 0x3007 ||
      is_between(c, 0x3400, 0x4dbf) || is_between(c, 0x4e00, 0x9fff) ||
      is_between(c, 0xf900, 0xfaff) || is_between(c, 0x20000, 0x3fffd))
    return Class::kAlone;
  if (iswalnum_l(static_cast<wint_t>(c), locale)) return Class::kLetter;
  return is_in(kPictographs, c) ? Class::kPictograph : Class::kOther;
}

bool is_katakana_or_hangul(char32_t c) {
  return is_between(c, 0x30a1, 0x30fa) || is_between(c, 0x30fc, 0x30ff) ||
         is_between(c, 0x31f0, 0x31ff) || is_between(c, 0xff66, 0xff9d) ||
         is_between(c, 0x1100, 0x11ff) || is_between(c, 0x3131, 0x318e) ||
         is_between(c, 0xa960, 0xa97c) || is_between(c, 0xac00, 0xd7a3) ||
         is_between(c, 0xd7b0, 0xd7fb);
}

// The character at text[at], and the position after it; a byte that starts no character counts as
// U+FFFD.
char32_t next_character(std::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(at++);
  if (lead < 0x80) return lead;
  const int more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc2 ? 1 : 0;
  if (more == 0 || lead > 0xf4 || at + static_cast<size_t>(more) > text.size()) return 0xfffd;
  char32_t c = lead & (0x3f >> more);
  for (int i = 0; i < more; ++i) {
    const uint8_t next = byte(at + static_cast<size_t>(i));
    if ((next & 0xc0) != 0x80) return 0xfffd;
    c = c << 6 | (next & 0x3f);
  }
  at += static_cast<size_t>(more);
  return c;
}

bool is_vowel(std::string_view word, size_t i) {
  if (word[i] == 'y') return i > 0 && !is_vowel(word, i - 1);
  return std::string_view("aeiou").find(word[i]) != std::string_view::npos;
}

// Whether Porter's measure m of `stem` (how often a vowel is followed by a consonant) is over 0.
bool has_measure(std::string_view stem) {
  for (size_t i = 0; i + 1 < stem.size(); ++i)
    if (is_vowel(stem, i) && !is_vowel(stem, i + 1)) return true;
  return false;
}

// Porter's later departures turn bli into ble and logi into log in step 2. libstemmer has the
// published algorithm, so the words that reach step 2 with those endings get the new ending before;
// no step up to the second changes it then.
void apply_departures(std::string& word) {
  struct Rule {
    std::string_view ending, replacement;
  };
  static constexpr Rule kRules[] = {{"bly", "ble"},  {"blies", "ble"},  {"bli", "ble"},
                                    {"logy", "log"}, {"logies", "log"}, {"logi", "log"}};
  for (const Rule& rule : kRules) {
    if (!word.ends_with(rule.ending)) continue;
    const std::string_view stem(word.data(), word.size() - rule.ending.size());
    if (!has_measure(stem)) return;
    word.erase(stem.size()).append(rule.replacement);
    return;
  }
}

// One for the whole process, never freed: threads may use it until the very end.
locale_t unicode_locale() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

constexpr std::array<const char*, 3> kNames = {"english", "whitespace", "unicode"};

}  // namespace

AnalyzerKind parse_analyzer_kind(std::string_view name) {
  for (uint32_t i = 0; i < kNames.size(); ++i)
    if (name == kNames[i]) return static_cast<AnalyzerKind>(i);
  base::fail(base::ErrorKind::kInvalidInput, "--analyzer", "'", name,
             "', expected english, whitespace or unicode");
}

const char* analyzer_name(AnalyzerKind kind) { return kNames[static_cast<uint32_t>(kind)]; }

struct Analyzer::State {
  const AnalyzerKind kind;
  locale_t locale = unicode_locale();
  sb_stemmer* stemmer = sb_stemmer_new("porter", "UTF_8");
  std::string word;
  struct Stem {
    std::string word, term;
  };
  std::vector<Stem> stems;  // of words seen lately, by their hash

  explicit State(AnalyzerKind k) : kind(k) {}
  ~State() { sb_stemmer_delete(stemmer); }

  void lower(std::string_view token);
  void finish_english(std::string_view token, const Take& take);
  void finish(std::string_view token, const Take& take);
  void split_at_white_space(std::string_view text, const Take& take) const;
  Class read(std::string_view text, size_t at, size_t& end) const;
  size_t take_neighbours(std::string_view text, size_t at, const Take& take);
  size_t end_of_pictograph(std::string_view text, size_t at) const;
  void split_into_words(std::string_view text, const Take& take);
};

// `word` becomes the token in lower case.
void Analyzer::State::lower(std::string_view token) {
  word.clear();
  for (size_t at = 0; at < token.size();) {
    const char32_t c = next_character(token, at);
    if (c < 0x80) {
      word += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
    } else {
      base::append_utf8(word, static_cast<uint32_t>(towlower_l(static_cast<wint_t>(c), locale)));
    }
  }
}

// `token` as written in the text -> its term.
void Analyzer::State::finish_english(std::string_view token, const Take& take) {
  const std::string_view written = token;
  for (std::string_view possessive : {"'s", "'S", "\u2019s", "\u2019S", "\uff07s", "\uff07S"})
    if (token.ends_with(possessive)) {
      token.remove_suffix(possessive.size());
      break;
    }
  lower(token);
  if (word.empty() || std::ranges::binary_search(kStopWords, std::string_view(word))) return;
  const auto is_start = [](char c) { return (c & 0xc0) != 0x80; };
  if (word.size() <= 8 && std::ranges::count_if(word, is_start) <= 2) return take(word, written);
  constexpr size_t kNumStems = 8192;
  if (stems.empty()) stems.resize(kNumStems);
  Stem& known = stems[std::hash<std::string_view>()(word) % kNumStems];
  if (known.word != word) {
    known.word = word;
    apply_departures(word);
    const sb_symbol* stem = sb_stemmer_stem(
        stemmer, reinterpret_cast<const sb_symbol*>(word.data()), static_cast<int>(word.size()));
    if (!stem) throw std::bad_alloc();
    known.term.assign(reinterpret_cast<const char*>(stem),
                      static_cast<size_t>(sb_stemmer_length(stemmer)));
  }
  take(known.term, written);
}

void Analyzer::State::finish(std::string_view token, const Take& take) {
  if (kind == AnalyzerKind::kEnglish) return finish_english(token, take);
  lower(token);
  take(word, token);
}

void Analyzer::State::split_at_white_space(std::string_view text, const Take& take) const {
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t before = at;
    const char32_t c = next_character(text, at);
    const bool blank = c < 0x80 ? c == ' ' || (c >= '\t' && c <= '\r')
                                : iswspace_l(static_cast<wint_t>(c), locale) != 0;
    if (!blank) continue;
    if (begin < before)
      take(text.substr(begin, before - begin), text.substr(begin, before - begin));
    begin = at;
  }
  if (begin < text.size()) take(text.substr(begin), text.substr(begin));
}

// The class of the character at text[at], which ends before `end`.
Class Analyzer::State::read(std::string_view text, size_t at, size_t& end) const {
  end = at;
  const char32_t c = next_character(text, end);
  const Class found = class_of(c, locale);
  if (kind == AnalyzerKind::kUnicode && c >= 0x1100 &&
      (found == Class::kAlone || is_katakana_or_hangul(c)))
    return Class::kNeighbour;
  return found;
}

// Where the pictograph ends that begins at text[at], with its marks and what U+200D joins to it.
size_t Analyzer::State::end_of_pictograph(std::string_view text, size_t at) const {
  size_t end = 0;
  read(text, at, end);
  bool is_joined = false;
  for (size_t next = 0; end < text.size(); end = next) {
    const Class found = read(text, end, next);
    if (found != Class::kMark && !(found == Class::kPictograph && is_joined)) break;
    is_joined = text.substr(end, next - end) == "\u200d";
  }
  return end;
}

// From text[at], which is a kNeighbour, to the end of the row of such; that end.
size_t Analyzer::State::take_neighbours(std::string_view text, size_t at, const Take& take) {
  size_t num = 0, last = at;  // characters, where the last one begins
  while (at < text.size()) {
    size_t end = 0;
    if (read(text, at, end) != Class::kNeighbour) break;
    for (size_t next = end; next < text.size() && read(text, end, next) == Class::kMark;)
      end = next;
    if (num > 0) finish(text.substr(last, end - last), take);
    ++num;
    last = at;
    at = end;
  }
  if (num == 1) finish(text.substr(last, at - last), take);
  return at;
}

Analyzer::Analyzer(AnalyzerKind kind) : state_(std::make_unique<State>(kind)) {
  if (!state_->locale)
    base::fail(base::ErrorKind::kNotFound, "analyzer",
               "the system has no C.UTF-8 locale; install it (Debian: libc-bin)");
  ERANK_CHECK(state_->stemmer != nullptr, "libstemmer lacks Porter's stemmer");
}

Analyzer::~Analyzer() = default;

void Analyzer::State::split_into_words(std::string_view text, const Take& take) {
  const auto read_behind_marks = [&](size_t at, size_t& end) {
    Class c = Class::kMark;
    for (end = at; end < text.size() && c == Class::kMark; at = end) c = read(text, at, end);
    return c == Class::kMark ? Class::kOther : c;
  };
  const auto is_word = [](Class c) {
    return c == Class::kLetter || c == Class::kDigit || c == Class::kJoiner;
  };
  size_t at = 0;
  while (at < text.size()) {
    size_t end = 0;
    Class last = read(text, at, end);
    if (last == Class::kNeighbour) {
      at = take_neighbours(text, at, take);
      continue;
    }
    if (last == Class::kAlone || last == Class::kPictograph) {
      if (last == Class::kPictograph) end = end_of_pictograph(text, at);
      finish(text.substr(at, end - at), take);
      at = end;
      continue;
    }
    if (!is_word(last)) {
      at = end;
      continue;
    }
    size_t begin = at;
    int num_chars = 1;
    bool has_content = last != Class::kJoiner;
    while (end < text.size()) {
      size_t next_end = 0;
      const Class next = read(text, end, next_end);
      int added = 1;
      if (next == Class::kMark) {
        end = next_end;
        ++num_chars;
        continue;
      }
      if (!is_word(next)) {
        const bool joins = next == Class::kMidBoth ||
                           (next == Class::kMidLetter && last == Class::kLetter) ||
                           (next == Class::kMidNum && last == Class::kDigit);
        size_t behind_end = next_end;
        if (!joins || last == Class::kJoiner || next_end >= text.size() ||
            read_behind_marks(next_end, behind_end) != last)
          break;
        next_end = behind_end;
        added = 2;
      } else {
        last = next;
      }
      if (num_chars + added > kMaxWordChars) {
        if (has_content) finish(text.substr(begin, end - begin), take);
        begin = end;
        num_chars = 0;
        has_content = false;
        if (added == 2) break;
      }
      has_content = has_content || last != Class::kJoiner;
      num_chars += added;
      end = next_end;
    }
    if (has_content) finish(text.substr(begin, end - begin), take);
    at = end;
  }
}

void Analyzer::analyze(std::string_view text, const Take& take) {
  if (state_->kind == AnalyzerKind::kWhitespace) {
    state_->split_at_white_space(text, take);
  } else {
    state_->split_into_words(text, take);
  }
}

std::vector<std::string> Analyzer::analyze(std::string_view text) {
  std::vector<std::string> out;
  analyze(text, [&](std::string_view term, std::string_view) { out.emplace_back(term); });
  return out;
}

}  // namespace erank::retrieve
