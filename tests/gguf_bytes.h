// The bytes of a GGUF file, piece by piece, so that a test can write any file and spoil it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace erank::testing::gguf_bytes {

template <typename T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
inline std::string text(const std::string& value) { return raw<uint64_t>(value.size()) + value; }
inline std::string u32(uint32_t value) { return raw(value); }
inline std::string u64(uint64_t value) { return raw(value); }

inline std::string key(const std::string& name, uint32_t type, const std::string& value) {
  return text(name) + u32(type) + value;
}

inline std::string tensor(const std::string& name, const std::vector<uint64_t>& dimensions,
                          uint32_t type, uint64_t offset) {
  std::string out = text(name) + u32(static_cast<uint32_t>(dimensions.size()));
  for (const uint64_t size : dimensions) out += u64(size);
  return out + u32(type) + u64(offset);
}

// A whole file: the header, zeros up to the alignment, `data`.
inline std::string gguf(const std::vector<std::string>& keys,
                        const std::vector<std::string>& tensors, const std::string& data,
                        size_t alignment = 32, uint32_t version = 3) {
  std::string out = "GGUF" + u32(version) + u64(tensors.size()) + u64(keys.size());
  for (const auto& k : keys) out += k;
  for (const auto& t : tensors) out += t;
  out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
  return out + data;
}

enum : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64,
};
enum : uint32_t { kF32 = 0, kF16 = 1, kQ8_0 = 8, kQ2_K = 10 };

}  // namespace erank::testing::gguf_bytes
