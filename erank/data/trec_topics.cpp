#include "erank/data/trec_topics.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <string>

#include "erank/base/error.h"
#include "erank/data/json_values.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::Json;

constexpr std::string_view kBlanks = " \t\r\n\f\v";

struct Part {
  std::string_view tag, label;
};
constexpr std::array<Part, 4> kParts = {
    {{"num", "number:"}, {"title", "topic:"}, {"desc", "description:"}, {"narr", "narrative:"}}};

bool same(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return std::tolower(static_cast<unsigned char>(c)); };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

// The name of the tag that `text` begins with, with its `/` where it is an end tag; "" for no tag.
std::string_view tag_at(std::string_view text) {
  if (text.empty() || text[0] != '<') return "";
  const size_t end = text.find('>');
  if (end == text.npos) return "";
  const std::string_view name = text.substr(1, end - 1);
  const std::string_view letters = name.starts_with('/') ? name.substr(1) : name;
  const bool good = !letters.empty() && std::all_of(letters.begin(), letters.end(), [](char c) {
    return std::isalpha(static_cast<unsigned char>(c)) != 0;
  });
  return good ? name : "";
}

// Whether the tag at text[at] ends what is before it: that of a part, or any at a line's beginning.
bool ends_part(std::string_view text, size_t at) {
  std::string_view tag = tag_at(text.substr(at));
  if (tag.empty()) return false;
  const size_t before = at == 0 ? text.npos : text.find_last_not_of(" \t", at - 1);
  if (before == text.npos || text[before] == '\n') return true;
  if (tag.starts_with('/')) tag.remove_prefix(1);
  return std::any_of(kParts.begin(), kParts.end(),
                     [&](const Part& part) { return same(part.tag, tag); });
}

// White space made one blank, none at the ends.
std::string folded(std::string_view text) {
  std::string out;
  for (size_t begin = text.find_first_not_of(kBlanks); begin != text.npos;
       begin = text.find_first_not_of(kBlanks, begin)) {
    const size_t end = std::min(text.find_first_of(kBlanks, begin), text.size());
    out += (out.empty() ? "" : " ") + std::string(text.substr(begin, end - begin));
    begin = end;
  }
  return out;
}

class TopicReader {
 public:
  TopicReader(const ByteSource& source, ReadNotes* notes,
              const std::function<void(const Json&, const Place&)>& take)
      : source_(source), notes_(notes), take_(take) {}

  void add(std::string_view line, int64_t number) {
    const size_t begin = line.find_first_not_of(kBlanks);
    const std::string_view text = begin == line.npos ? "" : line.substr(begin);
    const std::string_view tag = tag_at(text);
    if (same(tag, "top")) {
      finish();
      open_ = true;
      place_ = {source_.name(), number};
      text_ = text.substr(5);
    } else if (open_) {
      text_ += text;
    } else if (!text.empty()) {
      fail({source_.name(), number}, "text outside of <top> and </top>");
    }
    text_ += "\n";
    if (open_ && text_.find("</") != text_.npos) close();
  }

  // The last topic may lack its end where another one begins, not at the file's end.
  void finish() {
    if (!open_) return;
    take_parts(text_);
    open_ = false;
  }
  void finish_file() const {
    if (open_) fail(place_, "a topic without its </top>");
  }

 private:
  [[noreturn]] static void fail(const Place& place, const char* what) {
    base::fail(ErrorKind::kInvalidInput, "read_topics", place.str(), ": ", what,
               "; expected TREC topics: <top> <num> <title> ... </top>");
  }

  void close() {
    for (size_t at = text_.find("</"); at != text_.npos; at = text_.find("</", at + 1))
      if (same(tag_at(std::string_view(text_).substr(at)), "/top")) {
        take_parts(std::string_view(text_).substr(0, at));
        open_ = false;
        const size_t end = std::min(text_.find('>', at), text_.size() - 1);
        const std::string rest = text_.substr(end + 1);
        text_.clear();
        add(rest, place_.number);  // another topic on the same line
        return;
      }
  }

  void take_parts(std::string_view text) {
    Json topic = Json::object();
    ReadNotes notes;
    for (size_t at = text.find('<'); at != text.npos; at = text.find('<', at + 1)) {
      const std::string_view tag = tag_at(text.substr(at));
      const auto part = std::find_if(kParts.begin(), kParts.end(),
                                     [&](const Part& known) { return same(known.tag, tag); });
      if (part == kParts.end()) continue;
      const size_t begin = at + tag.size() + 2;
      size_t end = std::min(text.find('<', begin), text.size());
      while (end < text.size() && !ends_part(text, end))
        end = std::min(text.find('<', end + 1), text.size());
      std::string value = folded(repaired_text(text.substr(begin, end - begin), &notes));
      if (same(value.substr(0, part->label.size()), part->label))
        value = folded(std::string_view(value).substr(part->label.size()));
      topic[std::string(part->tag)] = value;
    }
    const std::string number = topic.value("num", "");
    if (number.empty()) fail(place_, "a topic without <num>");
    if (notes.repaired > 0 && number.find("\xef\xbf\xbd") != number.npos)
      fail(place_, "a topic whose number is no UTF-8");
    if (notes_) notes_->repaired += notes.repaired > 0;
    take_(topic, place_);
  }

  const ByteSource& source_;
  ReadNotes* notes_;
  const std::function<void(const Json&, const Place&)>& take_;
  Place place_;
  std::string text_;
  bool open_ = false;
};

}  // namespace

bool is_trec_topics(std::string_view head) {
  const size_t begin = head.find_first_not_of(kBlanks);
  return begin != head.npos && same(tag_at(head.substr(begin, 5)), "top");
}

void for_each_topic(ByteSource& source, ReadNotes* notes,
                    const std::function<void(const Json&, const Place&)>& take) {
  TopicReader reader(source, notes, take);
  for_each_line(source, [&](std::string_view line, int64_t number) { reader.add(line, number); });
  reader.finish_file();
}

}  // namespace erank::data
