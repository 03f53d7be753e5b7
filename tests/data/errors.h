// The message of an Error that must come.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "erank/base/error.h"

namespace erank::data {

// The message of the Error that `work` throws; its kind must be `kind`.
template <typename Work>
std::string error_of(base::ErrorKind kind, const Work& work) {
  try {
    work();
  } catch (const base::Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "no Error";
  return "";
}

}  // namespace erank::data
