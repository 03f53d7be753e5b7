#define ERANK_KERNEL_LEVEL generic
#define ERANK_KERNEL_WIDE 0
#include "erank/model/kernels/cpu_kernels.h"
#include "erank/model/kernels/cpu_kernels_impl.inc"
