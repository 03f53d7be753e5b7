// Verbs that several processes carry out together, started by mpirun or srun.
#pragma once

#include <functional>

#include "cli/verbs.h"
#include "erank/train/communicator.h"

namespace erank::cli {

// Calls `work` with the processes that a launcher started, or alone. Rank 0 alone prints, but for
// errors; an error on any rank ends them all.
void with_ranks(Context& context, const std::function<void(train::Communicator& ranks)>& work);

}  // namespace erank::cli
