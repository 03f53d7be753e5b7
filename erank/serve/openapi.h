// The description of the API: erank/serve/openapi.json, and a page made of it.
#pragma once

#include <string>
#include <string_view>

namespace erank::serve {

std::string_view openapi_json();
// HTML without a script or anything from elsewhere.
std::string openapi_page();

}  // namespace erank::serve
