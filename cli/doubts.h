// What makes rankings worth less than they look, told once after all of them.
#pragma once

#include <cstdint>

#include "erank/rank/ranking.h"

namespace erank::cli {

class Doubts {
 public:
  void note(const rank::Ranking& ranking);
  void tell() const;  // a warning for each kind that there is

 private:
  int64_t num_queries_ = 0, num_pairs_ = 0;
  int64_t num_low_mass_ = 0, num_constant_ = 0;  // pairs; queries
};

}  // namespace erank::cli
