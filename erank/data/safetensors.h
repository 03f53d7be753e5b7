// The safetensors format: 8 bytes header length (little-endian), JSON header, raw data.
// https://huggingface.co/docs/safetensors. Hostile files give one clear Error, never a crash.
#pragma once

#include <map>
#include <span>
#include <string>
#include <vector>

#include "erank/base/files.h"
#include "erank/data/tensor_info.h"

namespace erank::data {

// One .safetensors file, mapped. Immutable after open; thread-safe.
class SafetensorsFile {
 public:
  // Throws Error{kNotFound} or Error{kCorrupt} naming the file and the tensor: header longer than
  // 100 MB or than the file, bad JSON, unknown dtype, negative or overflowing shape, byte count
  // that is not the shape's, overlapping ranges, holes, a range past the end.
  static SafetensorsFile open(const std::string& path);

  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // in order of their bytes
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const base::MappedFile& file() const { return file_; }
  std::span<const uint8_t> bytes(const TensorInfo& tensor) const;

 private:
  explicit SafetensorsFile(base::MappedFile file) : file_(std::move(file)) {}
  base::MappedFile file_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, std::string> metadata_;
};

// The files of a model folder: model.safetensors, or every shard that model.safetensors.index.json
// names. Throws Error when neither is there, a shard is missing, the index names a path outside the
// folder, or a tensor is in another shard than the index says.
std::vector<std::string> safetensors_files(const std::string& folder);

// Writes a file atomically: add() the tensors in order with their bytes, then commit().
// Bytes are streamed to the disk, so the header is planned first: declare every tensor, then write
// each.
class SafetensorsWriter {
 public:
  // `tensors`: name, dtype, shape of every tensor in order (byte ranges are computed here).
  SafetensorsWriter(const std::string& path, const std::vector<TensorInfo>& tensors,
                    const std::map<std::string, std::string>& metadata = {});
  // The next tensor's bytes, all of them at once or in pieces. REQUIRES: sizes add up to the
  // declared ones.
  void write(std::span<const uint8_t> bytes);
  void commit();

 private:
  base::OutputFile file_;
  size_t expected_ = 0, written_ = 0;
};

}  // namespace erank::data
