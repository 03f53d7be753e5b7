// Token ids, in every room.
#pragma once

#include <cstdint>
#include <vector>

namespace erank::base {

using Ids = std::vector<int32_t>;

}  // namespace erank::base
