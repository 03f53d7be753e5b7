# Finds libtorch without TorchConfig.cmake (which wants a CUDA toolkit for a CUDA build, even on a
# machine that only compiles CPU code). Looks in ERANK_TORCH, else where tools/setup unpacked the wheel.
# Defines erank_torch: libtorch_cpu and libc10, OpenMP, C++20; ErankTorch_VERSION, ErankTorch_DIR.
erank_cache_folder(_cache)
if(ERANK_TORCH)
  set(_root "${ERANK_TORCH}")
else()
  set(_root "${_cache}/torch-2.13.0/torch")
endif()
find_path(ErankTorch_INCLUDE NAMES ATen/ATen.h PATHS "${_root}/include" "${_root}/torch/include" NO_DEFAULT_PATH NO_CACHE)
if(NOT ErankTorch_INCLUDE)
  message(FATAL_ERROR "libtorch: no ATen/ATen.h under ${_root}; run tools/setup, or configure with "
                      "-DERANK_TORCH=DIR (a libtorch folder or the torch package of a Python environment)")
endif()
get_filename_component(ErankTorch_DIR "${ErankTorch_INCLUDE}" DIRECTORY)
set(ErankTorch_DIR "${ErankTorch_DIR}" PARENT_SCOPE)  # for ErankInstall
file(STRINGS "${ErankTorch_INCLUDE}/torch/headeronly/version.h" _lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
if(NOT _lines)
  file(STRINGS "${ErankTorch_INCLUDE}/torch/csrc/api/include/torch/version.h" _lines REGEX "#define TORCH_VERSION_(MAJOR|MINOR|PATCH)")
endif()
foreach(part MAJOR MINOR PATCH)
  string(REGEX MATCH "TORCH_VERSION_${part} ([0-9]+)" _ "${_lines}")
  set(_v_${part} "${CMAKE_MATCH_1}")
endforeach()
set(ErankTorch_VERSION "${_v_MAJOR}.${_v_MINOR}.${_v_PATCH}")
if(ErankTorch_VERSION VERSION_LESS 2.11 OR ErankTorch_VERSION VERSION_GREATER_EQUAL 2.16)
  message(FATAL_ERROR "libtorch ${ErankTorch_VERSION} in ${ErankTorch_DIR}: expected 2.11 to 2.15")
endif()
foreach(lib torch_cpu c10)
  find_library(ErankTorch_${lib} NAMES ${lib} PATHS "${ErankTorch_DIR}/lib" NO_DEFAULT_PATH NO_CACHE REQUIRED)
endforeach()
find_package(OpenMP REQUIRED COMPONENTS CXX)

add_library(erank_torch INTERFACE)
target_include_directories(erank_torch SYSTEM INTERFACE "${ErankTorch_INCLUDE}" "${ErankTorch_INCLUDE}/torch/csrc/api/include")
target_compile_features(erank_torch INTERFACE cxx_std_20)
# Without -fopenmp at::parallel_for is serial (it is a header template). The runtime itself comes from
# the wheel's libgomp.so.1, which carries the system's soname: one runtime in the process.
target_compile_options(erank_torch INTERFACE ${OpenMP_CXX_FLAGS})
target_link_libraries(erank_torch INTERFACE "${ErankTorch_torch_cpu}" "${ErankTorch_c10}")
target_link_options(erank_torch INTERFACE ${OpenMP_CXX_FLAGS} "LINKER:-rpath-link,${ErankTorch_DIR}/lib"
                    "LINKER:-rpath-link,${ErankTorch_DIR}/../nvidia/cu13/lib")
# The CUDA kernels register themselves when the library is loaded, so nothing may drop it.
if(ERANK_CUDA)
  if(NOT EXISTS "${ErankTorch_DIR}/lib/libtorch_cuda.so")
    message(FATAL_ERROR "ERANK_CUDA: no libtorch_cuda.so in ${ErankTorch_DIR}/lib; configure with -DERANK_TORCH=DIR, "
                        "a libtorch built for CUDA")
  endif()
  target_link_options(erank_torch INTERFACE "LINKER:-rpath,${ErankTorch_DIR}/lib"
                      "LINKER:-rpath,${ErankTorch_DIR}/../nvidia/cu13/lib"
                      "LINKER:--no-as-needed" "${ErankTorch_DIR}/lib/libtorch_cuda.so"
                      "${ErankTorch_DIR}/lib/libc10_cuda.so" "LINKER:--as-needed")
endif()
message(STATUS "libtorch ${ErankTorch_VERSION}: ${ErankTorch_DIR}")
