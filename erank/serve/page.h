// The page at `/`: the files of web/dist, which cmake/EmbedPage.cmake builds into the program.
#pragma once

#include <span>
#include <string_view>

namespace erank::serve {

struct PageFile {
  std::string_view path;  // as a client asks for it: "/" for index.html, "/app.js"
  std::string_view type;  // "text/html; charset=utf-8"
  std::string_view body;
};

// Every file of the page; they live as long as the program. Thread-safe.
std::span<const PageFile> page_files();

// Content-Security-Policy, to be sent with each of them: no script, style, image or connection but
// this server's own, nothing inline, no frame around the page.
inline constexpr std::string_view kPagePolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

}  // namespace erank::serve
