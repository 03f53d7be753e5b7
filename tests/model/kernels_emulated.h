// The kernels of erank/model/cuda/kernels.cuh, run on the CPU by an emulation of CUDA's threads.
// What a GPU would not define (threads of a block that wait at different places, a shuffle without
// some of its warp, a pack that is not where its size demands) ends the program.
#pragma once

#include "erank/model/cuda/kernels.h"

namespace erank::model::cuda::emulated {

// A block's threads run from the first to the last between two places where they wait for each
// other, or from the last to the first: what is not synchronised differs.
extern const Kernels kForwards, kBackwards;

}  // namespace erank::model::cuda::emulated
