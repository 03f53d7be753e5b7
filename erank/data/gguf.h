// The GGUF format, version 2 and 3, little-endian: header, key-value metadata, tensor table, data.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Hostile files give one clear Error.
#pragma once

#include <map>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "erank/base/files.h"
#include "erank/data/tensor_info.h"

namespace erank::data {

// A metadata value: integers of every width widen to int64_t (uint64_t over 2^63-1 is refused),
// floats to double; arrays hold one kind. Nested arrays are refused.
using GgufValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string>, std::vector<bool>>;

// The files of the model that `path` is or is a part of: "NAME-00001-of-00003.gguf" and so on, as
// llama.cpp splits one, else `path` alone. They need not be there.
std::vector<std::string> gguf_files(const std::string& path);

// One .gguf file, or all parts of a split one, mapped. Immutable after open; thread-safe.
class GgufFile {
 public:
  // Any part of a split file opens all of them; the first one's metadata counts, its path is
  // file()'s. Throws Error{kNotFound} naming a part that is missing.
  // Throws Error{kNotFound} or Error{kCorrupt} naming file and key or tensor: wrong magic or
  // version, truncated anywhere, counts or sizes that the file cannot hold, duplicate keys or
  // tensors, unknown value or tensor type, misaligned or overlapping data, data past the end,
  // a header over 100 MB.
  static GgufFile open(const std::string& path);

  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }
  // metadata()[key] as T, one of GgufValue's types; throws Error{kCorrupt} naming the key when it
  // is missing or of another kind.
  template <typename T>
  const T& require(const std::string& key) const;
  // The same, but nullptr when the key is missing.
  template <typename T>
  const T* find(const std::string& key) const;

  // In the order of the file's table; shapes slowest first, the reverse of how the file writes
  // them.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  const base::MappedFile& file() const { return files_.front(); }
  const base::MappedFile& file_of(const TensorInfo& tensor) const { return files_[tensor.part]; }
  std::span<const uint8_t> bytes(const TensorInfo& tensor) const;

 private:
  explicit GgufFile(base::MappedFile file) { files_.push_back(std::move(file)); }
  static GgufFile open_part(const std::string& path);
  std::vector<base::MappedFile> files_;
  std::map<std::string, GgufValue> metadata_;
  std::vector<TensorInfo> tensors_;
};

}  // namespace erank::data
