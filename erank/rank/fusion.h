// One ranking of several: what a list's scores are worth beside another's, and their weighted sums.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

namespace erank::data {
struct Run;
}

namespace erank::rank {

// Of the scores x of one query's list; M is what a document counts that the list lacks.
enum class FusionMethod {
  kZScore,  // (x - mean) / population standard deviation (ERank, section 4.3: the hybrid); of a
            // constant list 0. M: the list's least
  kMinMax,  // (x - least) / (greatest - least); of a constant list 1. M: 0
  kSum,     // x. M: 0
  kRrf,  // 1 / (k + rank), rank from 1 by falling scores, equal ones in the list's order (Cormack,
         // Clarke and Buettcher, 2009). M: 0
};

// "zscore", "minmax", "sum", "rrf". Throws Error{kInvalidInput} for another name.
FusionMethod parse_fusion_method(std::string_view name, const char* where);

constexpr double kRrfConstant = 60;

// What a list gives to each of its documents, in its order, and to one that it lacks; an empty list
// gives 0. Constant: up to rounding. REQUIRES: finite scores, rrf_k >= 0.
struct Shares {
  std::vector<double> of;
  double missing = 0;
};
Shares shares_of(FusionMethod method, std::span<const double> scores, double rrf_k = kRrfConstant);

// w share(first_stage) + (1 - w) share(model), element by element. REQUIRES: equal sizes,
// 0 <= w <= 1.
std::vector<double> blend(FusionMethod method, std::span<const double> first_stage,
                          std::span<const double> model, double w);

// For each query of any run, in order of first appearance, every document of its lists by the sum
// of weight times share, best first, equal sums in the byte order of the ids. Throws
// Error{kInvalidInput} when a sum is not finite. REQUIRES: as many weights as runs.
data::Run fuse(FusionMethod method, std::span<const data::Run> runs,
               std::span<const double> weights, double rrf_k = kRrfConstant);

}  // namespace erank::rank
