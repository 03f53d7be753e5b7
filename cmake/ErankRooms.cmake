# One function a kind of target, so that every room, test and bench is declared the same way.

add_library(erank_flags INTERFACE)
target_include_directories(erank_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(erank_flags INTERFACE -Wall -Wextra -Wno-unused-parameter
                       -Wno-restrict)  # false in GCC 12: gcc.gnu.org/bugzilla 105651
if(ERANK_WERROR)
  target_compile_options(erank_flags INTERFACE -Werror)
endif()
if(ERANK_SANITIZE)
  target_compile_options(erank_flags INTERFACE -fsanitize=${ERANK_SANITIZE} -fno-omit-frame-pointer
                                               -fno-sanitize-recover=all)
  target_link_options(erank_flags INTERFACE -fsanitize=${ERANK_SANITIZE})
endif()
if(ERANK_FUZZ)
  target_compile_options(erank_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# erank_cache_folder(VARIABLE): where tools/setup puts what it downloads.
function(erank_cache_folder variable)
  set(cache "$ENV{ERANK_CACHE}")
  if(NOT cache AND NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
    set(cache "$ENV{XDG_CACHE_HOME}/erank")
  elseif(NOT cache)
    set(cache "$ENV{HOME}/.cache/erank")
  endif()
  set(${variable} "${cache}" PARENT_SCOPE)
endfunction()

# erank_room(NAME [DEPS room...] [LIBS library...] [ONLY unit...] [NOT folder...]): the static library of erank/NAME,
# alias erank::NAME; with ONLY of the named units alone, with NOT without the folders' units.
function(erank_room name)
  cmake_parse_arguments(R "" "" "DEPS;LIBS;ONLY;NOT" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/erank/${name}/*.cpp
                                      ${CMAKE_SOURCE_DIR}/erank/${name}/*/*.cpp)
  if(R_ONLY)
    list(TRANSFORM R_ONLY REPLACE "(.+)" "${CMAKE_SOURCE_DIR}/erank/${name}/\\1.cpp" OUTPUT_VARIABLE sources)
  endif()
  foreach(folder ${R_NOT})
    list(FILTER sources EXCLUDE REGEX "/erank/${name}/${folder}/")
  endforeach()
  add_library(erank_${name} STATIC ${sources})
  add_library(erank::${name} ALIAS erank_${name})
  target_link_libraries(erank_${name} PUBLIC erank_flags)
  foreach(dep ${R_DEPS})
    target_link_libraries(erank_${name} PUBLIC erank::${dep})
  endforeach()
  target_link_libraries(erank_${name} PUBLIC ${R_LIBS})
endfunction()

# erank_tests(ROOM [LIBS library...] [ONLY unit...]): every tests/ROOM/*.cpp (with ONLY the tests of the named
# units) as one program erank_ROOM_tests.
# A test whose suite name starts with Tiny or Slow gets that label, every other one `unit`.
function(erank_tests room)
  cmake_parse_arguments(T "" "" "LIBS;ONLY" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${room}/*.cpp)
  if(T_ONLY)
    list(TRANSFORM T_ONLY REPLACE "(.+)" "${CMAKE_SOURCE_DIR}/tests/${room}/\\1_test.cpp" OUTPUT_VARIABLE sources)
  endif()
  if(NOT sources)
    return()
  endif()
  add_executable(erank_${room}_tests ${sources})
  target_link_libraries(erank_${room}_tests PRIVATE ${T_LIBS} erank_test_support)
  set(where WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} DISCOVERY_TIMEOUT 120)
  # Tests run side by side: threads that wait must not spin on a processor that another test needs.
  set(quiet ENVIRONMENT OMP_WAIT_POLICY=PASSIVE)
  gtest_discover_tests(erank_${room}_tests ${where} TEST_FILTER "-Tiny*:Slow*" PROPERTIES LABELS unit ${quiet})
  gtest_discover_tests(erank_${room}_tests ${where} TEST_FILTER "Tiny*" PROPERTIES LABELS tiny TIMEOUT 900 ${quiet})
  gtest_discover_tests(erank_${room}_tests ${where} TEST_FILTER "Slow*" PROPERTIES LABELS slow TIMEOUT 3600 ${quiet})
endfunction()

# erank_fuzzer(NAME LIBS...): tests/fuzz/NAME.cpp. With ERANK_FUZZ a libFuzzer program; always a
# replay program that runs the committed corpus tests/fuzz/corpus/NAME as a unit test.
function(erank_fuzzer name)
  if(ERANK_FUZZ)
    add_executable(fuzz_${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/${name}.cpp)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(fuzz_${name} PRIVATE ${ARGN})
  else()
    add_executable(replay_${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/${name}.cpp
                                  ${CMAKE_SOURCE_DIR}/tests/fuzz/replay_main.cpp)
    target_link_libraries(replay_${name} PRIVATE ${ARGN})
    add_test(NAME FuzzCorpus.${name} COMMAND replay_${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${name})
    set_tests_properties(FuzzCorpus.${name} PROPERTIES LABELS unit ${quiet})
  endif()
endfunction()
