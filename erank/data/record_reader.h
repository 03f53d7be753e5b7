// Queries and documents of every form, one after another: what the readers of records.h share.
#pragma once

#include <functional>
#include <string>

#include "erank/base/json.h"
#include "erank/data/records.h"
#include "erank/data/source.h"

namespace erank::data {

struct Record {
  std::string id = {};     // not empty
  std::string title = {};  // "": none; queries have none
  std::string text = {};
  // The object that it was read from, with its other keys; nullptr where it was none. Of a TREC
  // topic its other parts.
  const base::Json* from = nullptr;

  // Title and text as one text, joined by one blank.
  Document document() &&;
};

// Calls `take` for each record in the file's order, those whose id was there already included.
// Throws as read_queries and read_documents, but for ids that come twice.
void for_each_record(const std::string& path, RecordKind kind, const ReadOptions& options,
                     const std::function<void(Record record, const Place& place)>& take);

// A document's or query's text in a JSON object; `where` names it in messages. Throws
// Error{kInvalidInput} when there is none.
std::string record_text(const base::Json& object, RecordKind kind, const ReadOptions& options,
                        const std::string& where);

}  // namespace erank::data
