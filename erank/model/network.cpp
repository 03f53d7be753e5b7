#include "erank/model/network.h"

namespace erank::model {

const char* precision_name(Precision precision) {
  switch (precision) {
    case Precision::kFp32:
      return "fp32";
    case Precision::kInt8:
      return "int8";
    case Precision::kBf16:
      break;
  }
  return "bf16";
}

}  // namespace erank::model
