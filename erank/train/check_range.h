// Numbers that a caller gives, checked before anything long begins.
#pragma once

#include "erank/base/error.h"

namespace erank::train {

// Throws Error{kInvalidInput} naming `option` unless low <= value <= high; a NaN is not.
inline void check_range(const char* option, double value, double low, double high) {
  if (value >= low && value <= high) return;
  base::fail(base::ErrorKind::kInvalidInput, option, "is ", value, ", expected a number from ", low,
             " to ", high);
}

}  // namespace erank::train
