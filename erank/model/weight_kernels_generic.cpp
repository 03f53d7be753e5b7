// Any processor.
#define ERANK_KERNEL_LEVEL generic
#include "erank/model/weight_kernels.h"
#include "erank/model/weight_kernels.inc"
