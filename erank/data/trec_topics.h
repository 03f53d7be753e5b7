// TREC topics: queries in the SGML of TREC's ad hoc tracks.
#pragma once

#include <functional>
#include <string_view>

#include "erank/base/json.h"
#include "erank/data/records.h"
#include "erank/data/source.h"

namespace erank::data {

// Whether a file that begins so holds topics: `<top>`, in any case.
bool is_trec_topics(std::string_view head);

// Calls `take` for each topic, <top> to </top> or the next <top>, with its parts num, title, desc
// and narr as far as they are there, each up to the next tag of a part or at a line's beginning:
// labels ("Number:", "Topic:", "Description:", "Narrative:") and tags taken off, white space made
// one blank, valid UTF-8. Throws Error{kInvalidInput} with the line for a topic without number or
// end, and for text between topics.
void for_each_topic(ByteSource& source, ReadNotes* notes,
                    const std::function<void(const base::Json& topic, const Place& place)>& take);

}  // namespace erank::data
