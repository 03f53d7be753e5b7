#define ERANK_KERNEL_LEVEL avx2
#define ERANK_KERNEL_WIDE 0
#include "erank/model/kernels/cpu_kernels.h"
#include "erank/model/kernels/cpu_kernels_impl.inc"
