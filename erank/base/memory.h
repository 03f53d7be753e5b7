// How much memory the system has left for this process.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace erank::base {

struct AvailableMemory {
  int64_t bytes = 0;
  std::string what;  // what sets it, for messages: "free memory and swap" or "the memory limit of
                     // the cgroup"
};

// What can still be taken before the system ends a process: MemAvailable and the free swap of
// /proc/meminfo, or less where a cgroup of this process (version 1 or 2) or one above it has a
// limit: what is left of it, pages of files counted as free. Nothing where /proc/meminfo does not
// say. `root`: before /proc and /sys, for tests.
std::optional<AvailableMemory> available_memory(const std::string& root = "");

// The most memory that this process has held, in bytes.
int64_t peak_memory();

// "8.04 GB", "12.3 MB", "512 bytes": three digits, powers of 1000.
std::string memory_text(int64_t bytes);

}  // namespace erank::base
