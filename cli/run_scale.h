// The scale of a run's scores, where something else than the run says it.
#pragma once

#include <optional>
#include <string>

#include "erank/eval/calibration.h"

namespace erank::cli {

// As `option` (--scale: yes-no, 0-3 or 0-10; "": not given), else as the record beside a run of
// `erank rerank`; a blend is on none. nullopt: neither says it. Throws Error{kInvalidInput} for
// another name of a scale, and as read_made_of() does.
std::optional<eval::ScoreScale> said_scale(const std::string& run, const std::string& option);

// "zscore:0.2" of a run whose record says that its scores are blends with the first stage's, else
// "".
std::string hybrid_of(const std::string& run);

}  // namespace erank::cli
