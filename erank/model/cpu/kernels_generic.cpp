// Any processor.
#define ERANK_KERNEL_LEVEL generic
#include "erank/model/cpu/kernels.h"
#include "erank/model/cpu/kernels.inc"
