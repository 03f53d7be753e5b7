// Verbs that several processes carry out together, started by mpirun or srun.
#pragma once

#include <functional>

#include "cli/verbs.h"

namespace erank::train {
class Communicator;
}

namespace erank::cli {

// Calls `work` with the processes that a launcher started, or alone. Rank 0 alone prints, but for
// errors; an error on any rank ends them all.
void with_ranks(Context& context, const std::function<void(train::Communicator& ranks)>& work);
// Called as the program ends: the other processes end too when this one has left with_ranks() by an
// error.
void end_ranks(int exit_code);

}  // namespace erank::cli
