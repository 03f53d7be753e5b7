// The products of erank/model/cpu/tiles.inc by tiles that are emulated as Intel's manual defines
// their instructions. A use that the processor would refuse ends the program.
#pragma once

#include "erank/model/cpu/kernels.h"

namespace erank::model::cpu::emulated {

void matmul_bf16(const MatmulArgs& args);
void matmul_int8(const MatmulArgs& args);

}  // namespace erank::model::cpu::emulated
