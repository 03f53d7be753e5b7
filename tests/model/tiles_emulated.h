// The products and the attention of erank/model/cpu/tiles.inc by tiles that are emulated as Intel's
// manual defines their instructions. A use that the processor would refuse ends the program.
#pragma once

#include "erank/model/cpu/kernels.h"

namespace erank::model::cpu::emulated {

extern const Kernels kKernels;

}  // namespace erank::model::cpu::emulated
