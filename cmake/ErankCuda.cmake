# With ERANK_CUDA, where nvcc is found: erank_cuda_kernels, the GPU kernels of our own (erank/model/cuda/kernels.cu).
# ERANK_NVCC: the compiler; OFF: none, libtorch's operations in their place.
find_program(ERANK_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
# Results must round as libtorch's do, whose operations are a kernel each.
set(ERANK_NVCC_OPTIONS -fmad=false)
if(NOT ERANK_CUDA)
  return()
endif()
if(NOT ERANK_NVCC)
  message(STATUS "CUDA kernels: none (-DERANK_NVCC=PATH names an nvcc), libtorch's operations instead")
  return()
endif()
message(STATUS "CUDA kernels: ${ERANK_NVCC}")
set(CMAKE_CUDA_COMPILER ${ERANK_NVCC})
set(CMAKE_CUDA_ARCHITECTURES 80-real 90)  # code for both, and PTX that later GPUs compile
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # libtorch's own
set(CMAKE_CUDA_STANDARD 17)
enable_language(CUDA)
add_library(erank_cuda_kernels STATIC erank/model/cuda/kernels.cu)
target_include_directories(erank_cuda_kernels PRIVATE ${CMAKE_SOURCE_DIR})
target_compile_options(erank_cuda_kernels PRIVATE ${ERANK_NVCC_OPTIONS})
