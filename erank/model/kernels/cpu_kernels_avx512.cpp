#define ERANK_KERNEL_LEVEL avx512
#define ERANK_KERNEL_WIDE 1
#include "erank/model/kernels/cpu_kernels.h"
#include "erank/model/kernels/cpu_kernels_impl.inc"
