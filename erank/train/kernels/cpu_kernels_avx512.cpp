#define ERANK_KERNEL_LEVEL avx512
#include "erank/model/cpu/vector.inc"
#include "erank/train/kernels/cpu_kernels.h"
#include "erank/train/kernels/cpu_kernels.inc"
