#include "cli/devices.h"

#include <algorithm>
#include <charconv>

#include "erank/base/error.h"

namespace erank::cli {
namespace {

using base::str;

// What is wrong with the text; "": nothing, and `devices` has them.
std::string read_devices(const std::string& text, std::vector<rank::Device>& devices) {
  constexpr std::string_view kGpu = "cuda:";
  devices.clear();
  if (text == "cpu") devices = {rank::Device{}};
  if (text == "cuda") devices = {rank::Device{0}};
  if (!devices.empty()) return "";
  if (!text.starts_with(kGpu))
    return str("'", text, "' is no device; expected cpu, cuda (the first GPU), or GPUs by number, ",
               "e.g. cuda:0,1");
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    std::string_view number = std::string_view(text).substr(begin, end - begin);
    if (number.starts_with(kGpu)) number.remove_prefix(kGpu.size());
    int gpu = 0;
    const auto [rest, error] = std::from_chars(number.data(), number.data() + number.size(), gpu);
    if (error != std::errc() || rest != number.data() + number.size() || gpu < 0)
      return str("'", text, "': '", number, "' is no GPU's number; expected e.g. cuda:0,1");
    if (std::ranges::any_of(devices, [&](const auto& device) { return device.gpu == gpu; }))
      return str("'", text, "' has GPU ", gpu, " twice");
    devices.push_back({gpu});
    begin = end + 1;
  }
  return "";
}

}  // namespace

std::vector<rank::Device> parse_devices(const std::string& text) {
  std::vector<rank::Device> devices;
  const std::string wrong = read_devices(text, devices);
  ERANK_CHECK(wrong.empty(), wrong);
  return devices;
}

CLI::Validator device_check(bool several) {
  return {[several](std::string& text) {
            std::vector<rank::Device> devices;
            std::string wrong = read_devices(text, devices);
            if (wrong.empty() && devices.size() > 1 && !several)
              wrong = str("'", text, "' is ", devices.size(), " GPUs; expected one");
            return wrong;
          },
          "DEVICE"};
}

}  // namespace erank::cli
