#include "erank/serve/api.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <initializer_list>
#include <map>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/serve/http_text.h"

namespace erank::serve {
namespace {

using base::Json;
using base::str;

std::string shown(const Json& value) {
  return value.is_string() ? base::in_quotes(value.get_ref<const std::string&>(), 60)
                           : base::printable(base::dump_json(value).substr(0, 60));
}

[[noreturn]] void wrong(const std::string& param, const std::string& what) {
  throw ApiError(400, what, param);
}

[[noreturn]] void wrong_type(const std::string& param, const Json& value, const char* expected) {
  wrong(param, str(param, " is ", shown(value), ", expected ", expected));
}

[[noreturn]] void empty_list(const std::string& name) {
  ApiError error(400, str("invalid request: list of ", name, " must not be empty"), name);
  error.empty = true;
  throw error;
}

bool to_bool(const std::string& name, const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number() && (value == 0 || value == 1)) return value == 1;
  if (value.is_string()) {
    const std::string text = lower(value.get<std::string>());
    for (const char* yes : {"true", "1", "yes"})
      if (text == yes) return true;
    for (const char* no : {"false", "0", "no", ""})
      if (text == no) return false;
  }
  wrong_type(name, value, "true or false");
}

double to_number(const std::string& name, const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    double number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (!text.empty() && error == std::errc() && end == text.data() + text.size() &&
        std::isfinite(number))
      return number;
  }
  wrong_type(name, value, "a number");
}

// A whole number of at least `least`, as a text of at most nine digits too; what is larger than any
// use of it is cut to 2^53.
int64_t to_whole(const std::string& name, const Json& value, int64_t least) {
  constexpr double kMost = 9007199254740992.0;
  const char* expected = least == 0 ? "a whole number of 0 or more" : "a whole number of 1 or more";
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    const std::string whole = text.substr(0, text.find('.'));  // "5.0" too
    const bool digits = !whole.empty() && whole.size() <= 9 && text.back() != '.' &&
                        text.find_first_not_of("0123456789.") == text.npos &&
                        (whole[0] != '0' || whole.size() == 1);
    if (!digits) wrong_type(name, value, expected);
  }
  const double number = to_number(name, value);
  if (number != std::floor(number) || number < static_cast<double>(least))
    wrong_type(name, value, expected);
  return static_cast<int64_t>(std::min(number, kMost));
}

// The fields of a request.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  // The first of the names under which there is a value.
  std::pair<std::string, const Json*> find(std::initializer_list<const char*> names) const {
    for (const char* name : names) {
      const auto it = object_.find(name);
      if (it != object_.end() && !it->is_null()) return {name, &*it};
    }
    return {*names.begin(), nullptr};
  }
  bool has(const char* name) const { return find({name}).second != nullptr; }
  bool names(const char* name) const { return object_.contains(name); }  // null counts

  // Of several names for one thing each that has a value is read, so that none is wrong unseen; the
  // first counts.
  template <typename Read>
  auto first(std::initializer_list<const char*> names, Read read) const
      -> std::optional<decltype(read(std::string(), Json()))> {
    std::optional<decltype(read(std::string(), Json()))> found;
    for (const char* name : names)
      if (const Json* value = find({name}).second) {
        auto one = read(std::string(name), *value);
        if (!found) found = std::move(one);
      }
    return found;
  }
  bool flag(std::initializer_list<const char*> names, bool fallback) const {
    return first(names, to_bool).value_or(fallback);
  }
  std::optional<int64_t> whole(std::initializer_list<const char*> names, int64_t least) const {
    return first(names, [least](const std::string& name, const Json& value) {
      return to_whole(name, value, least);
    });
  }
  std::optional<std::string> word(std::initializer_list<const char*> names) const {
    return first(names, [](const std::string& name, const Json& value) {
      if (!value.is_string()) wrong_type(name, value, "a text");
      return value.get<std::string>();
    });
  }

 private:
  const Json& object_;
};

// One text of a value that holds one: a text, a number, or what has parts.
std::string scalar_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return value.is_null() ? "" : base::dump_json(value);
}

bool is_image(const Json& object) {
  for (const char* key : {"image", "image_url", "audio", "video", "input_audio", "video_url"})
    if (object.contains(key)) return true;
  return false;
}

std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  for (const std::string& text : texts) {
    if (!all.empty() && !text.empty()) all += '\n';
    all += text;
  }
  return all;
}

// A query or a document: a text, a number, {"text": ...}, {"content": ...}, a list of such parts,
// or any other object, of which `fields` are taken or else everything, as YAML.
std::string text_of(const std::string& name, const Json& value,
                    const std::vector<std::string>& fields) {
  if (value.is_array()) {
    if (value.empty()) wrong(name, str(name, " is an empty list, expected a text or parts of one"));
    std::vector<std::string> parts;
    for (const Json& part : value) {
      if (part.is_array()) wrong_type(name, value, "a text or a list of parts");
      parts.push_back(text_of(name, part, {}));
    }
    return joined(parts);
  }
  if (!value.is_object()) return scalar_text(value);
  std::vector<std::string> chosen;
  for (const std::string& field : fields)
    if (const auto it = value.find(field); it != value.end() && !it->is_null())
      chosen.push_back(scalar_text(*it));
  if (!chosen.empty()) return joined(chosen);
  if (const auto it = value.find("text"); it != value.end()) return scalar_text(*it);
  if (is_image(value)) wrong(name, str(name, " is an image or a sound; only texts can be read"));
  if (const auto it = value.find("content"); it != value.end() && it->is_array())
    return text_of(name, *it, {});
  std::string yaml;
  for (const auto& [key, entry] : value.items()) yaml += str(key, ": ", scalar_text(entry), "\n");
  if (!yaml.empty()) yaml.pop_back();
  return yaml;
}

// Whether a list is one text in parts and not several texts.
bool are_parts(const Json& list) {
  constexpr std::string_view kKinds[] = {"text",  "input_text", "image_url", "input_image",
                                         "image", "video_url",  "audio_url"};
  return !list.empty() && std::all_of(list.begin(), list.end(), [&](const Json& part) {
    if (!part.is_object()) return false;
    const auto type = part.find("type");
    return type != part.end() && type->is_string() &&
           std::count(std::begin(kKinds), std::end(kKinds), type->get_ref<const std::string&>());
  });
}

using Texts = std::shared_ptr<const std::vector<std::string>>;

// The texts of a list; a text alone is a list of one.
Texts texts_of(const std::string& name, const Json& value, const std::vector<std::string>& fields) {
  auto texts = std::make_shared<std::vector<std::string>>();
  const Json* list = &value;
  if (value.is_object()) {  // vLLM: {"content": [part ...]}, a document each
    const auto it = value.find("content");
    if (it != value.end() && it->is_array()) list = &*it;
  }
  if (!list->is_array()) {
    if (!list->is_string() && !list->is_object()) wrong_type(name, value, "a list of texts");
    texts->push_back(text_of(name, *list, fields));
    return texts;
  }
  if (list->empty()) empty_list(name);
  texts->reserve(list->size());
  for (size_t i = 0; i < list->size(); ++i)
    texts->push_back(text_of(str(name, "[", i, "]"), (*list)[i], fields));
  return texts;
}

// One query: a text, a number, {"text": ...}, {"content": [part ...]} or a list of parts. `name` is
// where it is, `param` the field.
std::string query_of(const std::string& param, const std::string& name, const Json& value) {
  const auto expect = [&](bool good, const char* expected) {
    if (!good) wrong(param, str(name, " is ", shown(value), ", expected ", expected));
  };
  const auto parts = [&](const Json& list) {
    for (const Json& part : list) {
      if (is_image(part))
        wrong(param, str(name, " has an image or a sound; only texts can be read"));
      const auto text = part.find("text");
      expect(text != part.end() && text->is_string() && *text != "", "parts with a text each");
    }
    return text_of(name, list, {});
  };
  if (value.is_array()) {
    expect(are_parts(value), "a text");
    return parts(value);
  }
  std::string query;
  if (value.is_object()) {
    const auto text = value.find("text"), content = value.find("content");
    if (text != value.end() && text->is_string()) {
      query = text->get<std::string>();
    } else {
      if (is_image(value))
        wrong(param, str(name, " is an image or a sound; only texts can be read"));
      expect(content != value.end() && content->is_array() && are_parts(*content),
             "a text or an object with \"text\"");
      return parts(*content);
    }
  } else {
    expect(value.is_string() || value.is_number(), "a text");
    query = scalar_text(value);
  }
  if (query.empty()) wrong(param, str("invalid request: ", name, " must not be empty"));
  return query;
}

struct Queries {
  std::vector<std::string> texts = {};
  bool several = false;  // they came as a list
};
Queries queries_of(const std::string& name, const Json& value) {
  if (!value.is_array() || are_parts(value)) return {{query_of(name, name, value)}};
  if (value.empty()) empty_list(name);
  Queries queries{.several = true};
  for (size_t i = 0; i < value.size(); ++i)
    queries.texts.push_back(query_of(name, str(name, "[", i, "]"), value[i]));
  return queries;
}

// The documents of each query.
std::vector<Texts> documents_of(const std::string& name, const Json& value, const Queries& queries,
                                const std::vector<std::string>& fields) {
  const size_t count = queries.texts.size();
  const bool lists = queries.several && value.is_array() && !value.empty() &&
                     std::all_of(value.begin(), value.end(), [](const Json& list) {
                       return list.is_array() && !are_parts(list);
                     });
  if (!lists) return std::vector<Texts>(count, texts_of(name, value, fields));
  if (value.size() != count)
    wrong(name, str(name, " has ", value.size(), " lists, expected ", count,
                    ", one a query, or one list of texts for all"));
  std::vector<Texts> documents;
  for (size_t q = 0; q < count; ++q) {
    const std::string list = str(name, "[", q, "]");
    for (size_t i = 0; i < value[q].size(); ++i)
      if (value[q][i].is_array()) wrong_type(str(list, "[", i, "]"), value[q][i], "a text");
    documents.push_back(texts_of(list, value[q], fields));
  }
  return documents;
}

void check_size(const RerankCall& call, const ApiLimits& limits) {
  int64_t pairs = 0, bytes = 0;
  for (const QueryCall& query : call.queries) {
    const auto size = std::ssize(*query.documents);
    pairs += size;
    // Every pair is read whole.
    bytes += size * (std::ssize(query.query) + std::ssize(call.options.instruction.value_or("")));
    for (const std::string& text : *query.documents) bytes += std::ssize(text);
  }
  if (pairs > limits.max_documents)
    throw ApiError(413,
                   str("the request has ", pairs, " documents, expected at most ",
                       limits.max_documents, "; send several requests"),
                   "documents");
  if (bytes > limits.max_text_bytes)
    throw ApiError(
        413,
        str("the texts of all pairs, each with its query and instruction, have ", bytes,
            " bytes, expected at most ", limits.max_text_bytes, "; send several requests"),
        "documents");
}

std::vector<double> first_stage_of(const std::string& name, const Json& value, size_t size) {
  if (!value.is_array() || value.size() != size)
    wrong(name,
          value.is_array()
              ? str(name, " has ", value.size(), " numbers, expected ", size, ", one a document")
              : str(name, " is ", shown(value), ", expected a list of one number a document"));
  std::vector<double> scores;
  constexpr double kMost = 1e30;  // so that means and squares stay finite
  for (size_t i = 0; i < size; ++i) {
    const std::string item = str(name, "[", i, "]");
    scores.push_back(to_number(item, value[i]));
    if (!(std::abs(scores.back()) <= kMost)) wrong_type(item, value[i], "a number up to 1e30");
  }
  return scores;
}

void read_hybrid(const Json& value, RerankCall& call) {
  if (!value.is_object())
    wrong_type("hybrid", value, "an object with \"scores\", \"weight\" and \"method\"");
  const Fields fields(value);
  const Json* scores = fields.find({"scores"}).second;
  if (!scores) wrong("hybrid.scores", "hybrid.scores is missing, expected one number a document");
  const bool lists =
      call.several && scores->is_array() && !scores->empty() &&
      std::all_of(scores->begin(), scores->end(), [](const Json& list) { return list.is_array(); });
  if (lists && scores->size() != call.queries.size())
    wrong("hybrid.scores", str("hybrid.scores has ", scores->size(), " lists, expected ",
                               call.queries.size(), ", one a query"));
  for (size_t q = 0; q < call.queries.size(); ++q) {
    QueryCall& query = call.queries[q];
    query.first_stage = first_stage_of(lists ? str("hybrid.scores[", q, "]") : "hybrid.scores",
                                       lists ? (*scores)[q] : *scores, query.documents->size());
  }
  constexpr double kPaperWeight = 0.2;  // of BM25 (ERank, section 4.3)
  const Json* weight = fields.find({"weight"}).second;
  const double w = weight ? to_number("hybrid.weight", *weight) : kPaperWeight;
  if (!(w >= 0 && w <= 1)) wrong_type("hybrid.weight", *weight, "a number from 0 to 1");
  call.options.hybrid_weight = w;
  if (const auto method = fields.word({"method"})) {
    try {
      call.options.hybrid_method = rank::parse_fusion_method(*method, "hybrid.method");
    } catch (const base::Error&) {
      wrong("hybrid.method", str("hybrid.method is ", base::in_quotes(*method, 60),
                                 ", expected zscore, minmax, sum or rrf"));
    }
  }
}

std::vector<std::string> rank_fields_of(const Fields& fields) {
  const Json* value = fields.find({"rank_fields"}).second;
  if (!value) return {};
  const auto is_text = [](const Json& name) { return name.is_string(); };
  if (value->is_string()) return {value->get<std::string>()};
  if (!value->is_array() || !std::all_of(value->begin(), value->end(), is_text))
    wrong_type("rank_fields", *value, "a list of names");
  return value->get<std::vector<std::string>>();
}

void read_documents(const Fields& fields, RerankCall& call) {
  const auto queries = fields.first({"query"}, queries_of);
  if (!queries) wrong("query", "invalid request: query is missing, expected a text");
  const auto rank_fields = rank_fields_of(fields);
  const auto documents = fields.first({"documents", "texts", "passages"},
                                      [&](const std::string& name, const Json& value) {
                                        return documents_of(name, value, *queries, rank_fields);
                                      });
  if (!documents)
    wrong("documents", "invalid request: documents is missing, expected a list of texts");
  call.several = queries->several;
  for (size_t q = 0; q < queries->texts.size(); ++q)
    call.queries.push_back({queries->texts[q], (*documents)[q], {}, {}});
}

// Pairs: one query and N documents, or N of each. Pairs of equal queries are one query's.
void read_pairs(const Fields& fields, RerankCall& call) {
  const auto of_texts = [](const std::string& name, const Json& value) {
    return std::pair(name, texts_of(name, value, {}));
  };
  const auto of_queries = [](const std::string& name, const Json& value) {
    return std::pair(name, queries_of(name, value).texts);
  };
  const auto first = fields.first({"text_1", "queries", "query", "data_1"}, of_queries);
  const auto second = fields.first({"text_2", "documents", "items", "data_2"}, of_texts);
  if (!first) wrong("text_1", "text_1 is missing, expected a text or a list of texts");
  if (!second) wrong("text_2", "text_2 is missing, expected a text or a list of texts");
  const auto& [query_name, queries] = *first;
  const auto& documents = *second->second;
  if (queries.size() != 1 && queries.size() != documents.size())
    wrong(query_name, str(query_name, " has ", queries.size(), " texts and ", second->first, " ",
                          documents.size(), ", expected one and any number, or as many"));
  std::map<std::string, size_t> places;
  std::vector<std::vector<std::string>> texts;
  for (size_t i = 0; i < documents.size(); ++i) {
    const std::string& text = queries[queries.size() == 1 ? 0 : i];
    const auto [place, is_new] = places.try_emplace(text, call.queries.size());
    if (is_new) {
      call.queries.push_back({text, nullptr, {}, {}});
      texts.emplace_back();
    }
    call.queries[place->second].positions.push_back(i);
    texts[place->second].push_back(documents[i]);
  }
  for (size_t q = 0; q < texts.size(); ++q)
    call.queries[q].documents =
        std::make_shared<const std::vector<std::string>>(std::move(texts[q]));
}

template <typename T, typename Parse>
std::optional<T> choice(const Fields& fields, const char* name, const char* expected, Parse parse) {
  const auto text = fields.word({name});
  if (!text) return std::nullopt;
  try {
    return parse(*text, name);
  } catch (const base::Error&) {
    wrong(name, str(name, " is ", base::in_quotes(*text, 60), ", expected ", expected));
  }
}

void read_options(const Fields& fields, const ApiLimits& limits, RerankCall& call) {
  call.top_n = fields.whole({"top_n", "top_k"}, 0).value_or(0);
  call.voyage = fields.names("top_k") && !fields.names("top_n");
  call.return_documents =
      fields.flag({"return_documents", "return_text"}, call.shape == Shape::kEnvelope);
  call.raw_scores = fields.flag({"raw_scores"}, false);
  call.stream = fields.flag({"stream"}, false);
  call.deadline_ms = fields.whole({"deadline_ms"}, 1);
  constexpr int64_t kWeek = 7 * 24 * 3600 * 1000;  // what clocks can add to now
  if (call.deadline_ms) call.deadline_ms = std::min(*call.deadline_ms, kWeek);
  call.explain_top = fields.whole({"explain_top"}, 0).value_or(0);
  call.return_reasoning = fields.flag({"return_reasoning"}, call.explain_top > 0);
  call.return_distribution = fields.flag({"return_distribution"}, false);

  rank::ScoreOptions& options = call.options;
  for (const char* name : {"instruction", "instruct", "task"}) {
    const auto text = fields.word({name});
    if (text && !text->empty() && !options.instruction) options.instruction = text;
  }
  options.mode = choice<rank::Mode>(fields, "mode", "direct or think", rank::parse_mode);
  options.score = choice<rank::ScoreKind>(fields, "score", "paper, expected or integer",
                                          rank::parse_score_kind);
  if (const auto long_docs = fields.word({"long_docs"})) {
    if (*long_docs != "windows" && *long_docs != "cut")
      wrong("long_docs",
            str("long_docs is ", base::in_quotes(*long_docs, 60), ", expected windows or cut"));
    options.long_documents =
        *long_docs == "cut" ? rank::LongDocuments::kCut : rank::LongDocuments::kWindows;
  }
  if (const auto tokens = fields.whole({"max_think_tokens"}, 1)) {
    if (*tokens > limits.max_think_tokens)
      throw ApiError(
          422, str("max_think_tokens is ", *tokens, ", expected at most ", limits.max_think_tokens),
          "max_think_tokens");
    options.max_think_tokens = static_cast<int>(*tokens);
  }
}

// How the reasoning is drawn.
void read_sampling(const Fields& fields, const ApiLimits& limits, const ApiDefaults& defaults,
                   RerankCall& call) {
  rank::ScoreOptions& options = call.options;
  options.temperature = fields.first({"temperature"}, to_number).value_or(defaults.temperature);
  if (options.temperature < 0)
    wrong_type("temperature", *fields.find({"temperature"}).second, "a number of 0 or more");
  constexpr int64_t kMostSeed = (int64_t{1} << 53) - 1;  // that every client's numbers can say
  const auto seed = fields.whole({"seed"}, 0);
  if (seed > kMostSeed)
    wrong_type("seed", *fields.find({"seed"}).second, "a whole number from 0 to 9007199254740991");
  options.seed = seed ? static_cast<uint64_t>(*seed) : defaults.seed;
  const bool thinks =
      call.explain_top > 0 || options.mode.value_or(defaults.mode) == rank::Mode::kThink;
  const bool draws = thinks && options.temperature > 0;
  const auto samples = fields.whole({"samples"}, 1);
  if (samples > limits.max_samples)
    throw ApiError(422, str("samples is ", *samples, ", expected at most ", limits.max_samples),
                   "samples");
  if (samples > 1 && !draws)
    wrong("samples",
          str("samples is ", *samples, ", expected 1 without reasoning or a temperature above 0"));
  options.samples = samples ? static_cast<int>(*samples) : draws ? defaults.samples : 1;
}

Json parse_body(std::string_view body) {
  std::string repaired;
  if (!base::is_valid_utf8(body)) body = repaired = base::sanitize_utf8(body);
  if (body.find("\\ud") != body.npos || body.find("\\uD") != body.npos)
    body = repaired = base::replace_half_surrogates(body);
  try {
    Json json = base::parse_json(body, "the request's body");
    if (!json.is_object()) wrong("", "the request's body is no JSON object");
    return json;
  } catch (const base::Error& error) {
    std::string what = error.what();
    if (what.starts_with("[json] ")) what.erase(0, 7);
    wrong("", what);
  }
}

}  // namespace

RerankCall parse_call(PostRoute route, std::string_view body, const ApiLimits& limits,
                      const ApiDefaults& defaults) {
  RerankCall call;
  try {
    const Json json = parse_body(body);
    const Fields fields(json);
    if (route == PostRoute::kScore)
      call.shape = Shape::kScore;
    else if (fields.has("texts") && !fields.has("documents"))
      call.shape = Shape::kTei;
    read_options(fields, limits, call);
    read_sampling(fields, limits, defaults, call);
    if (route == PostRoute::kScore)
      read_pairs(fields, call);
    else
      read_documents(fields, call);
    check_size(call, limits);
    for (const QueryCall& query : call.queries) call.num_pairs += std::ssize(*query.documents);
    if (const Json* hybrid = fields.find({"hybrid"}).second) {
      if (route == PostRoute::kScore) wrong("hybrid", "hybrid is for /rerank, not for /score");
      read_hybrid(*hybrid, call);
    }
    return call;
  } catch (ApiError& error) {
    error.shape = call.shape;
    if (error.shape == Shape::kTei && error.status == 400 && !error.empty) error.status = 422;
    throw;
  }
}

}  // namespace erank::serve
