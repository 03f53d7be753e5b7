#include "erank/data/document_lists.h"

#include <array>
#include <span>
#include <string_view>
#include <unordered_set>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/data/json_values.h"
#include "erank/data/source.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;
using base::Json;

constexpr const char* kWhere = "read_document_lists";

std::string docid_of(const Json& value, const JsonValue& from, std::string_view key) {
  constexpr std::array<std::string_view, 1> kId = {"id"};
  if (!value.is_string() && !value.is_number_integer())
    fail(ErrorKind::kInvalidInput, kWhere, from.place.str(), ": '", key, "' holds ",
         value.type_name(), ", expected ids, texts or whole numbers");
  return id_of(Json{{"id", value}}, kId, from);
}

// `list_of` gives an object's list, or nullptr for none, which is an error where it is required
// unless the object names a single document under "pid".
template <typename ListOf>
DocumentLists read_lists(const std::string& path, std::span<const std::string_view> ids,
                         std::string_view key, bool required, const ListOf& list_of) {
  DocumentLists out;
  ByteSource source(path);
  std::unordered_set<std::string> seen;
  for_each_json(source, nullptr, [&](const JsonValue& value) {
    const Json& object = object_of(value);
    const std::string qid = id_of(object, ids, value);
    if (qid.empty())
      fail(ErrorKind::kInvalidInput, kWhere, value.place.str(), ": no query's id; expected '",
           ids[0], "', found ", keys_of(object));
    if (const auto one = object.find("pid"); one != object.end() && required) {
      out[qid].push_back(docid_of(*one, value, "pid"));
      return;
    }
    if (!seen.insert(qid).second)
      fail(ErrorKind::kInvalidInput, kWhere, value.place.str(), ": query ", base::in_quotes(qid),
           " comes twice; expected each once");
    const Json* list = list_of(object);
    if (!list && !required) return;
    if (!list || !list->is_array())
      fail(ErrorKind::kInvalidInput, kWhere, value.place.str(), ": '", key, "' is ",
           list ? list->type_name() : "missing", ", expected a list of ids");
    auto& documents = out[qid];
    for (const Json& id : *list) documents.push_back(docid_of(id, value, key));
  });
  return out;
}

}  // namespace

DocumentLists read_document_lists(const std::string& path) {
  constexpr std::array<std::string_view, 3> kIds = {"query-id", "query_id", "qid"};
  constexpr std::array<std::string_view, 2> kLists = {"corpus-ids", "corpus_ids"};
  return read_lists(path, kIds, kLists[0], true,
                    [&](const Json& object) { return find_first(object, kLists); });
}

DocumentLists read_excluded_documents(const std::string& path) {
  constexpr std::array<std::string_view, 5> kIds = {"id", "_id", "qid", "query_id", "query-id"};
  constexpr std::array<std::string_view, 1> kList = {"excluded_ids"};
  DocumentLists out = read_lists(path, kIds, kList[0], false, [&](const Json& object) {
    if (const Json* own = find_first(object, kList)) return own;
    const auto metadata = object.find("metadata");
    return metadata != object.end() && metadata->is_object() ? find_first(*metadata, kList)
                                                             : nullptr;
  });
  for (auto& [qid, documents] : out) std::erase(documents, "N/A");
  return out;
}

void drop_documents(const DocumentLists& lists, Run& run) {
  for (const auto& [qid, documents] : lists) {
    const auto hits = run.hits.find(qid);
    if (hits == run.hits.end()) continue;
    const std::unordered_set<std::string_view> dropped(documents.begin(), documents.end());
    std::erase_if(hits->second, [&](const Hit& hit) { return dropped.count(hit.docid) > 0; });
  }
}

}  // namespace erank::data
