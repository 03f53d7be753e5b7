// Blends the model's scores with the first stage's over the candidates of one query.
#pragma once

#include <span>
#include <vector>

namespace erank::rank {

// (x - mean) / population standard deviation; a constant list gives zeros (ERank, section 4.3: the
// hybrid).
std::vector<double> z_scores(std::span<const double> values);

// w z(first_stage) + (1 - w) z(model), element by element. REQUIRES: equal sizes, 0 <= w <= 1.
std::vector<double> blend_z_scores(std::span<const double> first_stage,
                                   std::span<const double> model, double w);

}  // namespace erank::rank
