// AVX-512 with BF16 and VNNI.
#define ERANK_KERNEL_LEVEL avx512bf16
#define ERANK_KERNEL_WIDE 1
#define ERANK_KERNEL_DOT 1
#include "erank/model/cpu/kernels.h"
#include "erank/model/cpu/kernels.inc"
