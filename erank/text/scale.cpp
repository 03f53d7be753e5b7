#include "erank/text/scale.h"

#include "erank/base/error.h"

namespace erank::text {

int max_answer(Scale scale) {
  switch (scale) {
    case Scale::kYesNo:
      return 1;
    case Scale::kZeroToThree:
      return 3;
    case Scale::kZeroToTen:
      break;
  }
  return 10;
}

std::string_view scale_name(Scale scale) {
  switch (scale) {
    case Scale::kYesNo:
      return "yes-no";
    case Scale::kZeroToThree:
      return "0-3";
    case Scale::kZeroToTen:
      break;
  }
  return "0-10";
}

std::string answer_text(Scale scale, int answer) {
  ERANK_CHECK(answer >= 0 && answer <= max_answer(scale), "answer ", answer, " on ",
              scale_name(scale));
  if (scale == Scale::kYesNo) return answer == 1 ? "yes" : "no";
  return std::to_string(answer);
}

Scale parse_scale(std::string_view name, std::string_view where) {
  for (const Scale scale : {Scale::kYesNo, Scale::kZeroToThree, Scale::kZeroToTen})
    if (name == scale_name(scale)) return scale;
  base::fail(base::ErrorKind::kInvalidInput, "scale", where, ": '", name,
             "', expected yes-no, 0-3 or 0-10");
}

}  // namespace erank::text
