// The pictures of a comparison's page, each a whole <svg> with its title, axes and units.
#pragma once

#include <string>

#include "erank/eval/comparison.h"

namespace erank::eval {

// A row for each run and blend: the mean on the first measure and its interval.
std::string plot_means(const Comparison& comparison);
// A point for each query: the first run's value and run `r`'s. REQUIRES: r > 0.
std::string plot_scatter(const Comparison& comparison, size_t r);
// A row of bars for each grade: how run `r`'s scores are distributed; "" without scores.
std::string plot_scores(const Comparison& comparison, size_t r);
// Stated probability against share of relevant pairs; "" where run `r` has no reliability.
std::string plot_reliability(const Comparison& comparison, size_t r);
// Bars over the tokens of prompts, the tokens that the model wrote, or the seconds that queries
// took;
// "" where none is above 0.
enum class Amount { kPromptTokens, kNewTokens, kSeconds };
std::string plot_amounts(const Comparison& comparison, size_t r, Amount amount);

}  // namespace erank::eval
