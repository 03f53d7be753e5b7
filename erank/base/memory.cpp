#include "erank/base/memory.h"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <fstream>
#include <limits>
#include <string_view>
#include <vector>

namespace erank::base {
namespace {

// Files of /proc and /sys have no size of their own.
std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::optional<int64_t> number(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == text.npos) return {};
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data() + begin, text.data() + text.size(), value);
  if (error != std::errc() || value < 0) return {};
  return value;
}

// The number after `key` at the beginning of a line.
std::optional<int64_t> number_of(const std::string& text, const std::string& key) {
  size_t at = 0;
  while (at < text.size()) {
    if (text.compare(at, key.size(), key) == 0) return number(text.substr(at + key.size()));
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
  }
  return {};
}

struct CgroupNames {
  const char *limit, *usage, *stat_prefix, *swap_limit, *swap_usage;
};
// Of version 1 the limit of memory with swap is of both together, and is left out.
constexpr CgroupNames kVersion1 = {"/memory.limit_in_bytes", "/memory.usage_in_bytes", "total_",
                                   nullptr, nullptr};
constexpr CgroupNames kVersion2 = {"/memory.max", "/memory.current", "", "/memory.swap.max",
                                   "/memory.swap.current"};

// What a cgroup leaves; nothing without a limit.
std::optional<int64_t> left_in(const std::string& folder, const CgroupNames& names,
                               int64_t free_swap) {
  const auto limit = number(text_of(folder + names.limit));
  const auto usage = number(text_of(folder + names.usage));
  if (!limit || !usage) return {};
  const std::string stat = text_of(folder + "/memory.stat"), prefix = names.stat_prefix;
  int64_t files = 0;  // and what else the kernel gives back
  for (const char* key : {"inactive_file ", "active_file ", "slab_reclaimable "})
    files += number_of(stat, prefix + key).value_or(0);
  int64_t swap = names.swap_limit ? free_swap : 0;
  if (names.swap_limit)
    if (const auto most = number(text_of(folder + names.swap_limit)))
      swap = std::min(swap, *most - number(text_of(folder + names.swap_usage)).value_or(0));
  const int64_t left = *limit - *usage;  // a limit of 2^63 - 4096 is none, and does not overflow
  if (left > std::numeric_limits<int64_t>::max() / 2) return {};
  return std::max<int64_t>(0, left + files) + std::max<int64_t>(0, swap);
}

// Where the memory controller's folders are mounted, and this process's path in them.
struct Cgroup {
  std::string mount, path;
  const CgroupNames* names;
};
std::vector<Cgroup> cgroups(const std::string& root) {
  std::vector<Cgroup> out;
  const std::string text = text_of(root + "/proc/self/cgroup");
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == line.npos || second == line.npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,")
      out.push_back({root + "/sys/fs/cgroup", path, &kVersion2});
    else if (controllers.find(",memory,") != controllers.npos)
      out.push_back({root + "/sys/fs/cgroup/memory", path, &kVersion1});
  }
  return out;
}

}  // namespace

std::optional<AvailableMemory> available_memory(const std::string& root) {
  const std::string info = text_of(root + "/proc/meminfo");
  const auto available = number_of(info, "MemAvailable:");
  if (!available) return {};
  const int64_t free_swap = number_of(info, "SwapFree:").value_or(0) << 10;
  AvailableMemory out{(*available << 10) + free_swap,
                      free_swap > 0 ? "free memory and swap" : "free memory"};
  for (const Cgroup& cgroup : cgroups(root)) {
    // Inside a container the path may be that of the host; then only its end is there, or nothing.
    std::string path = cgroup.path == "/" ? "" : cgroup.path;
    while (true) {
      const auto left = left_in(cgroup.mount + path, *cgroup.names, free_swap);
      if (left && *left < out.bytes) out = {*left, "the memory limit of the cgroup"};
      if (path.empty()) break;
      path.resize(path.rfind('/'));
    }
  }
  return out;
}

int64_t peak_memory() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} << 10;
}

std::string memory_text(int64_t bytes) {
  if (bytes < 1000) return std::to_string(bytes) + " bytes";
  constexpr const char* kUnits[] = {"kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes) / 1000;
  size_t unit = 0;
  for (; value >= 999.5 && unit + 1 < std::size(kUnits); ++unit) value /= 1000;
  char text[32];
  std::snprintf(text, sizeof text, "%.*f %s",
                value < 9.995   ? 2
                : value < 99.95 ? 1
                                : 0,
                value, kUnits[unit]);
  return text;
}

}  // namespace erank::base
