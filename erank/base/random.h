// A small random generator whose sequence is the same on every machine and compiler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace erank::base {

// SplitMix64 (Steele, Lea, Flood 2014): one 64-bit state, full period. Copyable; not thread-safe.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  // Uniform in [0, 1) with 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  // Uniform in [0, n). REQUIRES: n > 0.
  uint64_t below(uint64_t n) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(next()) * n) >> 64);
  }
  // Standard normal (Box-Muller, one of the pair).
  double normal();

 private:
  uint64_t state_;
};

// A seed for the i-th of many independent streams that come from one seed.
inline uint64_t derived_seed(uint64_t seed, uint64_t i) {
  return Random(seed ^ (i * 0xd1342543de82ef95ull + 0x2545f4914f6cdd1dull)).next();
}

// The seed of what is drawn for a query's document: of the ids alone, not of what else there is.
uint64_t pair_seed(uint64_t seed, std::string_view qid, std::string_view docid);

// Puts `values` in one of their orders, each with the same probability (Fisher and Yates).
template <typename T>
void shuffle(std::vector<T>& values, Random& random) {
  for (size_t i = values.size(); i > 1; --i) std::swap(values[i - 1], values[random.below(i)]);
}

}  // namespace erank::base
