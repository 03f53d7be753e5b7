// AVX2 and FMA.
#define ERANK_KERNEL_LEVEL avx2
#include "erank/model/weight_kernels.h"
#include "erank/model/weight_kernels.inc"
