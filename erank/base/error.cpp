#include "erank/base/error.h"

#include "erank/base/utf8.h"

namespace erank::base {

Error::Error(ErrorKind kind, const std::string& message)
    : std::runtime_error(printable(message)), kind_(kind) {}

}  // namespace erank::base
