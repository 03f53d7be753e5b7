#include "erank/rank/model_files.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "erank/base/error.h"
#include "erank/base/files.h"
#include "erank/data/gguf.h"
#include "erank/data/parquet_lines.h"
#include "erank/rank/checkpoint.h"

namespace erank::rank {
namespace {

namespace fs = std::filesystem;

// How much of a file is read: all up to `whole` bytes, else the first `head` bytes and `blocks`
// blocks of 4 KiB.
struct Reading {
  size_t whole, head, blocks;
};
constexpr Reading kAll = {SIZE_MAX, 0, 0};
constexpr Reading kQuick = {size_t{1} << 20, 0, 256};
constexpr Reading kThorough = {size_t{256} << 20, size_t{1} << 20, 1024};

void add_bytes(Digest& digest, const std::string& path, const Reading& reading) {
  constexpr size_t kBlockBytes = 4096, kPieceBytes = size_t{16} << 20;
  const base::MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()),
                               file.bytes().size());
  digest.add(base::str(bytes.size()));
  if (bytes.size() <= reading.whole) {
    size_t begin = 0;
    do {  // of what is read nothing stays in memory
      const std::string_view piece = bytes.substr(begin, kPieceBytes);
      digest.add(piece);
      file.release(begin, begin + piece.size());
      begin += piece.size();
    } while (begin < bytes.size());
    return;
  }
  if (reading.head > 0) digest.add(bytes.substr(0, reading.head));
  for (size_t i = 0; i < reading.blocks; ++i)
    digest.add(bytes.substr((bytes.size() - kBlockBytes) / (reading.blocks - 1) * i, kBlockBytes));
}

// Trained weights differ everywhere, so a part of them tells; a text may differ in one place.
Reading reading_of(std::string_view path) {
  return path.ends_with(".gguf") || path.ends_with(".safetensors") ? kQuick : kAll;
}

bool may_be_of_a_model(const fs::path& path) {
  if (path.filename().string().ends_with("calibration.json")) return false;  // of its scores
  constexpr std::array kEndings = {".json", ".safetensors", ".gguf", ".jinja", ".txt"};
  return std::find(kEndings.begin(), kEndings.end(), path.extension()) != kEndings.end();
}

bool is_weights_or_tokenizer(const fs::path& path) {
  constexpr std::array kNames = {"config.json",        "tokenizer.json", "tokenizer_config.json",
                                 "vocab.json",         "merges.txt",     "added_tokens.json",
                                 "chat_template.jinja"};
  const std::string name = path.filename();
  if (name.ends_with(".safetensors")) return name != "adapter_model.safetensors";
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

}  // namespace

void Digest::add(std::string_view text) {
  for (const char c : text) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  hash_ = (hash_ ^ text.size()) * 0x100000001b3ull;
}

std::string Digest::hex() const { return base::str(std::hex, hash_); }

std::vector<std::string> paths_of_model(const std::string& model) {
  const Checkpoint checkpoint = find_checkpoint(model);
  std::vector<std::string> paths = {checkpoint.weights};
  if (checkpoint.folder != checkpoint.weights) paths.push_back(checkpoint.folder);
  return paths;
}

std::string calibration_of_model(const std::string& model) {
  const Checkpoint checkpoint = find_checkpoint(model);
  return checkpoint.folder.empty() ? checkpoint.weights + ".calibration.json"
                                   : (fs::path(checkpoint.folder) / "calibration.json").string();
}

std::vector<std::string> model_files(const std::string& path) {
  std::vector<std::string> files;
  if (base::file_exists(path)) {
    for (auto& part : data::gguf_files(path))
      if (base::file_exists(part)) files.push_back(std::move(part));
    return files;
  }
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(path, none))
    if (entry.is_regular_file() && may_be_of_a_model(entry.path())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::string files_digest(const std::vector<std::string>& paths) {
  Digest digest;
  for (const auto& path : paths) {
    auto files = model_files(path);
    if (files.size() == 1) files = data::parquet_parts(files[0]);
    for (const auto& file : files) {
      if (base::folder_exists(path)) digest.add(fs::path(file).filename().string());
      add_bytes(digest, file, reading_of(file));
    }
    digest.add(base::str(files.size()));
  }
  return digest.hex();
}

std::string file_digest(const std::string& path) {
  Digest digest;
  for (const auto& part : data::parquet_parts(path)) add_bytes(digest, part, reading_of(part));
  return digest.hex();
}

std::string content_digest(const std::string& path) {
  Digest digest;
  add_bytes(digest, path, kAll);
  return digest.hex();
}

std::string weights_digest(const std::string& weights) {
  Digest digest;
  if (base::file_exists(weights)) {
    for (const auto& file : model_files(weights)) add_bytes(digest, file, kThorough);
    return digest.hex();
  }
  for (const auto& file : model_files(weights)) {
    if (!is_weights_or_tokenizer(file)) continue;
    digest.add(fs::path(file).filename().string());
    add_bytes(digest, file, kThorough);
  }
  return digest.hex();
}

void refuse_inputs(const std::vector<std::string>& targets,
                   const std::vector<std::string>& inputs) {
  for (const auto& input : inputs) {
    std::vector<std::string> files = {input == "-" ? "/dev/stdin" : input};
    if (base::folder_exists(input)) files = model_files(input);
    for (const auto& file : files)
      for (const auto& target : targets)
        if (base::is_same_file(file, target == "-" ? "/dev/stdout" : target))
          base::fail(base::ErrorKind::kInvalidInput, "--out", target == "-" ? "stdout" : target,
                     " is the same file as the input ", file == "/dev/stdin" ? "stdin" : file,
                     ", which would be lost; choose another name");
  }
}

}  // namespace erank::rank
