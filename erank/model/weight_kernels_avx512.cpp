// AVX-512 F, BW, DQ and VL.
#define ERANK_KERNEL_LEVEL avx512
#define ERANK_KERNEL_WIDE 1
#include "erank/model/weight_kernels.h"
#include "erank/model/weight_kernels.inc"
