// The JSON values of a file, a line each or the elements of one array.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "erank/base/json.h"
#include "erank/data/records.h"
#include "erank/data/source.h"

namespace erank::data {

struct JsonValue {
  base::Json value;
  Place place;
  // Bytes that are no UTF-8 or half a surrogate pair were replaced by U+FFFD; counted in the notes.
  bool repaired = false;
};

// Whether a file that begins so is one JSON array of objects or texts: `[`, then one of { " ].
bool is_json_array(std::string_view head);

// Calls `take` for each line that is not blank, or for each element when is_json_array(head). One
// value is in memory at a time. Throws Error{kInvalidInput} with the place for what is no JSON.
void for_each_json(ByteSource& source, ReadNotes* notes,
                   const std::function<void(const JsonValue& value)>& take);

// The value as an object; throws Error{kInvalidInput} for another type.
const base::Json& object_of(const JsonValue& value);

// The first of `keys` that `object` has and that is not null, else nullptr.
const base::Json* find_first(const base::Json& object, std::span<const std::string_view> keys);

// The id under the first of these keys, a text or a whole number, "" when there is none. Throws
// Error{kInvalidInput} for another type and for an id that is no UTF-8.
std::string id_of(const base::Json& object, std::span<const std::string_view> keys,
                  const JsonValue& from);

// The text under the first of these keys. Throws Error{kInvalidInput} that lists the keys there are
// when there is none, and for null and other types.
std::string text_of(const base::Json& object, std::span<const std::string_view> keys,
                    const std::string& where);

// The object's keys for a message: "'a', 'b'", or "none".
std::string keys_of(const base::Json& object);

// Throws Error{kInvalidInput} for an id that is no UTF-8.
void check_id(std::string_view id, const Place& place);

// `text` as UTF-8, and whether it was repaired counted in the notes.
std::string repaired_text(std::string_view text, ReadNotes* notes);

}  // namespace erank::data
