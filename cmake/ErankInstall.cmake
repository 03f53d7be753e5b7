# `cmake --install` and packages: bin/erank; the library liberank.so with its headers and CMake package; the default
# model with its base, the demo's collection; and in lib/erank what Debian has no package of: libtorch's CPU libraries
# and the modules. The tree can be moved. With ERANK_CUDA libtorch stays where it is.
include(GNUInstallDirs)
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)  # tests and benchmarks are not installed
set(private ${CMAKE_INSTALL_LIBDIR}/erank)

# All that rank, retrieve and eval hold, for programs that include erank/rank/reranker.h and the like.
set(rooms base data text eval retrieve model engine rank)
add_library(erank_shared SHARED)
foreach(room ${rooms})
  target_sources(erank_shared PRIVATE $<TARGET_OBJECTS:erank_${room}>)
  target_link_libraries(erank_shared PRIVATE erank::${room})  # for what the room needs itself
endforeach()
set_target_properties(erank_shared PROPERTIES OUTPUT_NAME erank EXPORT_NAME erank SOVERSION ${PROJECT_VERSION_MAJOR}
                      VERSION ${PROJECT_VERSION} LINKER_LANGUAGE CXX EXCLUDE_FROM_ALL ON INSTALL_RPATH "$ORIGIN/erank")
target_include_directories(erank_shared INTERFACE "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
target_compile_features(erank_shared INTERFACE cxx_std_20)

file(RELATIVE_PATH from_bin ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR}/erank)
set_target_properties(erank PROPERTIES INSTALL_RPATH "$ORIGIN/${from_bin}")
install(TARGETS erank RUNTIME COMPONENT program)
foreach(module parquet mpi)
  if(TARGET erank_${module})
    set_target_properties(erank_${module} PROPERTIES INSTALL_RPATH "$ORIGIN")
    install(TARGETS erank_${module} LIBRARY DESTINATION ${private} COMPONENT ${module})
    list(APPEND modules ${module})
  endif()
endforeach()
if(NOT ERANK_CUDA)
  file(GLOB libraries ${ErankTorch_DIR}/lib/libgomp.so* ${ErankTorch_DIR}/lib/libtorch_cpu.so
       ${ErankTorch_DIR}/lib/libc10.so)
  install(FILES ${libraries} DESTINATION ${private} COMPONENT program)
  install(FILES ${ErankParquet_LIBRARIES} DESTINATION ${private} COMPONENT parquet)
endif()
install(DIRECTORY models DESTINATION ${CMAKE_INSTALL_DATADIR}/erank COMPONENT program)
install(DIRECTORY examples/demo DESTINATION ${CMAKE_INSTALL_DATADIR}/erank/examples COMPONENT program)
erank_cache_folder(cache)
file(GLOB bases ${cache}/models/SmolLM2-135M-Instruct.Q4_1.gguf*)
if(NOT bases)
  install(CODE "message(WARNING \"the default model's base is not in ${cache}/models: what is installed needs \
--model, or the file beside it later; run tools/setup and configure again\")" COMPONENT program)
endif()
install(FILES ${bases} DESTINATION ${CMAKE_INSTALL_DATADIR}/erank/models COMPONENT program)
install(FILES examples/serve/erank.service DESTINATION lib/systemd/system COMPONENT program)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT program)

install(TARGETS erank_shared EXPORT erank LIBRARY COMPONENT library)
foreach(room ${rooms})
  install(DIRECTORY erank/${room} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/erank COMPONENT library
          FILES_MATCHING PATTERN "*.h")
endforeach()
include(CMakePackageConfigHelpers)
write_basic_package_version_file(erankConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(EXPORT erank NAMESPACE erank:: FILE erankConfig.cmake DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/erank
        COMPONENT library)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/erankConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/erank COMPONENT library)

set(CPACK_PACKAGE_VENDOR "erank")
set(CPACK_PACKAGE_CONTACT "the erank developers <noreply@example.org>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "reasoning reranker: ranks documents for a query by a language model")
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEB_COMPONENT_INSTALL ON)
# Training by several processes and Parquet are packages of their own: what they need is large.
set(CPACK_COMPONENTS_ALL program library ${modules})
set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME erank)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME liberank-dev)
set(CPACK_DEBIAN_LIBRARY_PACKAGE_DEPENDS "erank (= ${PROJECT_VERSION}), nlohmann-json3-dev")
foreach(module ${modules})
  string(TOUPPER ${module} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME erank-${module})
  set(CPACK_DEBIAN_${upper}_PACKAGE_DEPENDS "erank (= ${PROJECT_VERSION})")
endforeach()
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
get_filename_component(arrow "${ErankParquet_LIBRARIES}" DIRECTORY)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${ErankTorch_DIR}/lib ${arrow})
set(CPACK_DEBIAN_COMPRESSION_TYPE zstd)
include(CPack)
