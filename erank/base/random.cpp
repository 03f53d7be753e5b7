#include "erank/base/random.h"

#include <cmath>
#include <numbers>

namespace erank::base {

double Random::normal() {
  const double u = 1.0 - uniform();  // in (0, 1]: the logarithm is finite
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * uniform());
}

uint64_t pair_seed(uint64_t seed, std::string_view qid, std::string_view docid) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a over "qid\0docid"
  const auto add = [&](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3ull; };
  for (const char c : qid) add(static_cast<unsigned char>(c));
  add(0);
  for (const char c : docid) add(static_cast<unsigned char>(c));
  return derived_seed(seed, hash);
}

}  // namespace erank::base
