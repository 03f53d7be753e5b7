// For tests that stop a training in its middle.
#pragma once

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>
#include <thread>

namespace erank::cli {

// Waits until the training in this folder has saved this step or a later one, a minute at most.
inline void wait_for_step(const std::string& folder, int step) {
  char name[16];
  std::snprintf(name, sizeof name, "step-%06d", step);
  const auto saved = [&] {
    std::error_code none;
    for (const auto& entry : std::filesystem::directory_iterator(folder + "/checkpoints", none))
      if (entry.path().filename().string() >= name) return true;  // old ones are removed
    return false;
  };
  for (int i = 0; i < 60000 && !saved(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace erank::cli
