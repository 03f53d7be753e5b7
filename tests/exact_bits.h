// Whether the network that make_network gives on the CPU promises the same bits alone, in a batch
// and with a warm cache, as model/network.h says. The reference network of libtorch's operations
// does not.
#pragma once

namespace erank {

constexpr bool kExactBits = true;

}  // namespace erank
