#include "cli/digest.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"

namespace erank::cli {
namespace {

namespace fs = std::filesystem;

void add_file(Digest& digest, const fs::path& path) {
  constexpr size_t kBlocks = 256, kBlockBytes = 4096;
  const base::MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()),
                               file.bytes().size());
  digest.add(path.filename().string());
  digest.add(base::str(bytes.size()));
  if (bytes.size() <= kBlocks * kBlockBytes) return digest.add(bytes);
  for (size_t i = 0; i < kBlocks; ++i)
    digest.add(bytes.substr((bytes.size() - kBlockBytes) / (kBlocks - 1) * i, kBlockBytes));
}

bool may_be_of_a_model(const fs::path& path) {
  constexpr std::array kEndings = {".json", ".safetensors", ".gguf", ".jinja", ".txt"};
  return std::find(kEndings.begin(), kEndings.end(), path.extension()) != kEndings.end();
}

}  // namespace

void Digest::add(std::string_view text) {
  for (const char c : text) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  hash_ = (hash_ ^ text.size()) * 0x100000001b3ull;
}

std::string Digest::hex() const { return base::str(std::hex, hash_); }

std::vector<std::string> model_files(const std::string& path) {
  if (base::file_exists(path)) return {path};
  std::vector<std::string> files;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(path, none))
    if (entry.is_regular_file() && may_be_of_a_model(entry.path())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::string files_digest(const std::vector<std::string>& paths) {
  Digest digest;
  for (const auto& path : paths) {
    const auto files = model_files(path);
    for (const auto& file : files) add_file(digest, file);
    digest.add(base::str(files.size()));
  }
  return digest.hex();
}

}  // namespace erank::cli
