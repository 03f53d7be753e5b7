// Files that come with the program or the library.
#pragma once

#include <string>

namespace erank::base {

// `name` ("models/erank-135m", "erank_parquet.so"), a file or folder, in the first of these that
// has it: the folder of the program or shared library that this code is in, the one around it (the
// sources around a build folder), and share/erank and lib/erank in either (an installation). ""
// when none has it. Thread-safe.
std::string find_installed(const std::string& name);

}  // namespace erank::base
