# erank_embed_page(TARGET): adds to TARGET the source that defines erank::serve::page_files(), the files of web/dist.
# The bundle is committed, so that no build needs Node. Run as a script (-P) this file writes that source.

if(CMAKE_SCRIPT_MODE_FILE)
  set(type_html "text/html; charset=utf-8")
  set(type_js "text/javascript; charset=utf-8")
  set(type_css "text/css; charset=utf-8")
  set(type_svg "image/svg+xml")
  set(arrays "")
  set(entries "")
  file(GLOB files ${PAGE_DIR}/*)
  list(SORT files)
  foreach(file ${files})
    get_filename_component(name ${file} NAME)
    string(REGEX MATCH "[a-z]+$" ending ${name})
    if(NOT DEFINED type_${ending})
      message(FATAL_ERROR "${file}: no content type is known for '${ending}'; add one to cmake/EmbedPage.cmake")
    endif()
    file(READ ${file} bytes HEX)
    string(REGEX REPLACE "(..)" "0x\\1," bytes "${bytes}")
    string(MAKE_C_IDENTIFIER "file_${name}" array)
    string(APPEND arrays "constexpr unsigned char ${array}[] = {${bytes}};\n")
    if(name STREQUAL "index.html")
      set(name "")
    endif()
    string(APPEND entries "    {\"/${name}\", \"${type_${ending}}\", text(${array})},\n")
  endforeach()
  file(WRITE ${OUTPUT} "// Made by cmake/EmbedPage.cmake of web/dist.
#include \"erank/serve/page.h\"

namespace erank::serve {
namespace {

${arrays}
template <size_t size>
std::string_view text(const unsigned char (&bytes)[size]) {
  return {reinterpret_cast<const char*>(bytes), size};
}

}  // namespace

std::span<const PageFile> page_files() {
  static const PageFile files[] = {
${entries}  };
  return files;
}

}  // namespace erank::serve
")
  return()
endif()

function(erank_embed_page target)
  set(page ${CMAKE_SOURCE_DIR}/web/dist)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/page_files.cpp)
  file(GLOB files CONFIGURE_DEPENDS ${page}/*)
  add_custom_command(OUTPUT ${source}
                     COMMAND ${CMAKE_COMMAND} -DPAGE_DIR=${page} -DOUTPUT=${source}
                             -P ${CMAKE_SOURCE_DIR}/cmake/EmbedPage.cmake
                     DEPENDS ${files} ${CMAKE_SOURCE_DIR}/cmake/EmbedPage.cmake VERBATIM)
  target_sources(${target} PRIVATE ${source})
endfunction()
