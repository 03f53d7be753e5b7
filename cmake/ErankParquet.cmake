# erank_parquet.so beside the program: the reader of Parquet files by Apache Arrow, which the program loads when it is
# given one. ERANK_PARQUET: AUTO (where tools/setup --parquet has put Arrow, or ERANK_ARROW is given), ON or OFF.
set(ERANK_PARQUET AUTO CACHE STRING "Read Parquet files: AUTO, ON or OFF")
set(ERANK_ARROW "" CACHE PATH "Folder of an installed pyarrow package; empty: the one tools/setup --parquet fetched")
if(ERANK_PARQUET STREQUAL "OFF")
  return()
endif()
set(_root "${ERANK_ARROW}")
if(NOT _root)
  erank_cache_folder(_cache)
  set(_root "${_cache}/arrow-26.0.1/pyarrow")
endif()
file(GLOB _arrow "${_root}/libarrow.so.*")
file(GLOB _parquet "${_root}/libparquet.so.*")
if(NOT _arrow OR NOT _parquet OR NOT EXISTS "${_root}/include/parquet/arrow/reader.h")
  if(NOT ERANK_PARQUET STREQUAL "AUTO")
    message(FATAL_ERROR "Parquet: no libarrow, libparquet and include in ${_root}; run tools/setup --parquet, or "
                        "configure with -DERANK_ARROW=DIR (the pyarrow package of a Python environment)")
  endif()
  message(STATUS "Parquet: none; tools/setup --parquet fetches its reader")
  return()
endif()
message(STATUS "Parquet: ${_root}")
set(ErankParquet_LIBRARIES ${_arrow} ${_parquet} PARENT_SCOPE)  # for ErankInstall

add_library(erank_parquet MODULE data/parquet/parquet_reader.cpp)
set_target_properties(erank_parquet PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}
                      BUILD_RPATH "${_root}")
target_include_directories(erank_parquet SYSTEM PRIVATE "${_root}/include")
target_link_libraries(erank_parquet PRIVATE erank::base "${_parquet}" "${_arrow}")
target_link_options(erank_parquet PRIVATE "LINKER:-rpath-link,${_root}")
