// AVX2 and FMA.
#define ERANK_KERNEL_LEVEL avx2
#include "erank/model/cpu/kernels.h"
#include "erank/model/cpu/kernels.inc"
