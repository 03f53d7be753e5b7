// The scales on which relevance is asked for and answered.
#pragma once

#include <string>
#include <string_view>

namespace erank::text {

// An answer is a whole number from 0 to max_answer(), written in digits; of kYesNo 0 is "no" and 1
// is "yes".
enum class Scale { kYesNo, kZeroToThree, kZeroToTen };

int max_answer(Scale scale);               // 1, 3, 10
std::string_view scale_name(Scale scale);  // "yes-no", "0-3", "0-10"
std::string answer_text(Scale scale, int answer);

// Throws Error{kInvalidInput} for another name; `where` is what the text is of.
Scale parse_scale(std::string_view name, std::string_view where);

}  // namespace erank::text
