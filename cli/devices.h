// `--device`: where models compute.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "erank/rank/reranker.h"

namespace erank::cli {

// Of "cpu", "cuda" (the first GPU), or GPUs by number: "cuda:1", "cuda:0,1", "cuda:0,cuda:1".
// REQUIRES: device_check(...) has accepted it.
std::vector<rank::Device> parse_devices(const std::string& text);

// Accepts these lists; of one device alone where there may not be `several`.
CLI::Validator device_check(bool several);

}  // namespace erank::cli
