#include "erank/model/network.h"

#include "erank/base/error.h"

namespace erank::model {

const char* precision_name(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kInt8:
      return "int8";
    case Precision::kGguf:
      return "gguf";
    case Precision::kBf16:
      break;
  }
  return "bf16";
}

Precision precision_named(const std::string& name) {
  for (const Precision precision :
       {Precision::kFp32, Precision::kBf16, Precision::kInt8, Precision::kGguf})
    if (name == precision_name(precision)) return precision;
  ERANK_CHECK(false, "no precision is called ", name);
  return Precision::kFp32;
}

}  // namespace erank::model
