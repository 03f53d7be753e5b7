#include "erank/text/windows.h"

#include <algorithm>
#include <array>

#include "erank/base/error.h"
#include "erank/base/utf8.h"
#include "erank/text/white_space.h"

namespace erank::text {
namespace {

// With less room there is none for what a document is about.
constexpr int kFewestForHead = 32;

// How good a place is to cut at.
enum class Cut { kNone, kCharacter, kWord, kSentence };

constexpr std::array<std::string_view, 4> kStops = {".", "!", "?", "\xe2\x80\xa6"};  // ...
constexpr std::array<std::string_view, 4> kWideStops = {"\xe3\x80\x82", "\xef\xbc\x81",
                                                        "\xef\xbc\x9f", "\xe0\xa5\xa4"};  // 。！？।
constexpr std::array<std::string_view, 8> kClosers = {
    "\"", "'", ")", "]", "\xe2\x80\x9d", "\xe2\x80\x99", "\xc2\xbb", "\xe3\x80\x8d"};  // ”’»」

template <size_t N>
size_t suffix_of(std::string_view text, const std::array<std::string_view, N>& signs) {
  for (const std::string_view sign : signs)
    if (text.ends_with(sign)) return sign.size();
  return 0;
}

// A document's ids as places in its text.
class Places {
 public:
  Places(const Tokenizer& tokenizer, const Ids& ids) : starts_{0} {
    for (const int32_t id : ids) {
      text_ += tokenizer.bytes_of(id);
      starts_.push_back(text_.size());
    }
  }

  int64_t size() const { return std::ssize(starts_) - 1; }
  std::string_view text() const { return text_; }
  // The first byte of the i-th id.
  size_t start(int64_t i) const { return starts_[i]; }

  Cut cut_before(int64_t i) const {
    const size_t at = starts_[i];
    if (at == 0 || at == text_.size()) return Cut::kSentence;
    if ((static_cast<unsigned char>(text_[at]) & 0xc0) == 0x80) return Cut::kNone;
    const std::string_view before = std::string_view(text_).substr(0, at);
    const bool space = white_space_at(text_, at) > 0;
    if (before.back() == '\n' || text_[at] == '\n') return Cut::kSentence;
    std::string_view sentence = before;
    while (const size_t closer = suffix_of(sentence, kClosers)) sentence.remove_suffix(closer);
    if (suffix_of(sentence, kWideStops)) return Cut::kSentence;
    if (space && suffix_of(sentence, kStops)) {
      const size_t next = skip_white_space(text_, at);
      const bool goes_on = next < text_.size() && text_[next] >= 'a' && text_[next] <= 'z';
      return goes_on ? Cut::kWord : Cut::kSentence;
    }
    return space ? Cut::kWord : Cut::kCharacter;
  }

  // The best cut among [first, last], of equals the one nearest to `wanted`; -1 when all are inside
  // a character.
  int64_t best_cut(int64_t first, int64_t last, int64_t wanted) const {
    int64_t best = -1;
    Cut kind = Cut::kNone;
    for (int64_t i = first; i <= last; ++i) {
      const Cut here = cut_before(i);
      if (here > kind ||
          (here == kind && here != Cut::kNone && std::abs(i - wanted) < std::abs(best - wanted))) {
        best = i;
        kind = here;
      }
    }
    return best;
  }

 private:
  std::string text_;
  std::vector<size_t> starts_;  // of each id, and the text's end
};

int64_t code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

}  // namespace

Windows split_windows(const Tokenizer& tokenizer, std::string_view document, int max_tokens,
                      int max_windows) {
  ERANK_CHECK(max_tokens >= 1 && max_windows >= 1, "no room for a window");
  Windows result;
  std::string whole = base::sanitize_utf8(document);
  // No vocabulary has entries of 512 bytes, so what comes after is in no window.
  const size_t max_bytes = std::max(size_t{512} * max_tokens * max_windows, size_t{1} << 20);
  if (whole.size() > max_bytes) {
    whole.resize(base::utf8_prefix(whole, max_bytes));
    result.complete = false;
  }
  const Places places(tokenizer, tokenizer.encode(whole));
  const std::string_view text = places.text();
  size_t counted = 0;       // bytes
  int64_t num_counted = 0;  // code points in them
  const auto code_point_of = [&](size_t byte) {
    num_counted += byte < counted ? -code_points(text.substr(byte, counted - byte))
                                  : code_points(text.substr(counted, byte - counted));
    counted = byte;
    return num_counted;
  };
  int64_t begin = 0;
  size_t read = 0;  // up to this byte
  int64_t head_tokens = 0;
  if (places.size() > max_tokens && max_tokens >= kFewestForHead) {
    const int64_t most = max_tokens / 4;
    for (int64_t i = 1; i <= most && head_tokens == 0; ++i)
      if (places.cut_before(i) == Cut::kSentence) head_tokens = i;
    if (head_tokens == 0) head_tokens = std::max<int64_t>(places.best_cut(most / 2, most, most), 0);
    result.head = trim_white_space(text.substr(0, places.start(head_tokens)));
    if (result.head.empty()) head_tokens = 0;
  }
  const std::string head = result.head.empty() ? "" : result.head + " ";
  while (begin < places.size() && skip_white_space(text, read) < text.size()) {
    if (std::ssize(result.windows) == max_windows) {
      result.complete = false;
      break;
    }
    // Ids of white space alone are in no window's beginning, where an id may be a part of a
    // character.
    const size_t first_word = skip_white_space(text, places.start(begin));
    while (places.start(begin + 1) <= first_word) ++begin;
    std::string window;
    const bool is_first = result.windows.empty();
    int64_t room = is_first ? max_tokens : max_tokens - head_tokens;
    const int64_t overlap = room / 4;
    int64_t end = 0;
    size_t from = 0, to = 0;
    // Encoded alone a window may have more ids than inside the document.
    for (;;) {
      end = places.size();
      if (begin + room < end) {
        end = places.best_cut(begin + room / 2 + 1, begin + room, begin + room);
        // All inside a character, whose bytes are ids of their own.
        if (end < 0)
          for (end = begin + room; places.cut_before(end) == Cut::kNone;) ++end;
      }
      from = first_word;
      to = std::max(from, from + trim_white_space_right(
                                     text.substr(from, std::max(from, places.start(end)) - from))
                                     .size());
      window = is_first ? "" : head;
      window += text.substr(from, to - from);
      if (room == 1) break;
      const int64_t over = std::ssize(tokenizer.encode(window)) - max_tokens;
      if (over <= 0) break;
      room = std::max<int64_t>(1, std::min(room, end - begin) - over);
    }
    if (to > std::max(from, read))
      result.windows.push_back({std::move(window), code_point_of(from), code_point_of(to)});
    read = std::max(read, to);
    // `end` itself where a window is so short that it cannot overlap.
    begin = places.best_cut(begin + std::max<int64_t>(1, (end - begin) / 2),
                            std::max(begin + 1, end - 1), end - overlap);
    if (begin < 0) begin = end;
  }
  return result;
}

}  // namespace erank::text
