#include "erank/data/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <string_view>

#include "erank/base/error.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;

constexpr const char* kWhere = "gguf";
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 64;
constexpr uint32_t kMaxDimensions = 4;
// Real headers are a few megabytes of vocabulary. Values in memory take up to ten times their
// bytes.
constexpr size_t kMaxHeaderBytes = 100'000'000;
constexpr const char* kAlignmentKey = "general.alignment";
constexpr int64_t kDefaultAlignment = 32;

// Numbers of the kinds of values, as the format's document lists them.
enum ValueType : uint32_t {
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

std::optional<DType> dtype_from(uint32_t ggml_type) {
  switch (ggml_type) {
    case 0:
      return DType::kF32;
    case 1:
      return DType::kF16;
    case 2:
      return DType::kQ4_0;
    case 3:
      return DType::kQ4_1;
    case 6:
      return DType::kQ5_0;
    case 7:
      return DType::kQ5_1;
    case 8:
      return DType::kQ8_0;
    case 12:
      return DType::kQ4_K;
    case 13:
      return DType::kQ5_K;
    case 14:
      return DType::kQ6_K;
    case 26:
      return DType::kI32;
    case 27:
      return DType::kI64;
    case 30:
      return DType::kBF16;
    default:
      return std::nullopt;
  }
}

const char* kind_name(size_t variant_index) {
  static constexpr const char* kNames[] = {
      "true or false",           "a whole number",    "a number",        "a text",
      "a list of whole numbers", "a list of numbers", "a list of texts", "a list of true or false"};
  return kNames[variant_index];
}

// Walks the header; every read is checked against the bytes that are left.
class Reader {
 public:
  Reader(const std::string& path, std::span<const uint8_t> bytes)
      : path_(path),
        bytes_(bytes.first(std::min(bytes.size(), kMaxHeaderBytes))),
        cut_(bytes_.size() < bytes.size()) {}

  size_t position() const { return at_; }
  size_t left() const { return bytes_.size() - at_; }

  // What is being read, for messages: "key 'general.name'".
  void set_subject(std::string subject) { subject_ = std::move(subject); }

  template <typename T>
  T number() {
    need(sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  std::string_view text(uint64_t max_bytes) {
    const uint64_t size = number<uint64_t>();
    if (size > max_bytes)
      bad(base::str("a text of ", size, " bytes, at most ", max_bytes, " are allowed"));
    need(size);
    const std::string_view out(reinterpret_cast<const char*>(bytes_.data()) + at_, size);
    at_ += size;
    return out;
  }

  // Fails unless `count` things of at least `least_bytes` each can still come.
  void need_many(uint64_t count, size_t least_bytes) const {
    if (count > left() / least_bytes)
      run_out(base::str(count, " things of at least ", least_bytes, " bytes"));
  }

  [[noreturn]] void bad(const std::string& what) const {
    fail(ErrorKind::kCorrupt, kWhere, path_, ": ", subject_, ": ", what);
  }

 private:
  void need(uint64_t size) const {
    if (size > left()) run_out(base::str(size, " bytes"));
  }
  [[noreturn]] void run_out(const std::string& what) const {
    if (cut_) bad(base::str("the header is longer than ", kMaxHeaderBytes, " bytes"));
    bad(base::str("needs ", what, " at byte ", at_, ", but the file ends after ", left(),
                  " more; is it cut off?"));
  }

  const std::string& path_;
  std::span<const uint8_t> bytes_;
  bool cut_;  // the file goes on after the longest header that we read
  size_t at_ = 0;
  std::string subject_ = "header";
};

int64_t widened(Reader& reader, uint64_t value) {
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    reader.bad(base::str("the number ", value, " is over 2^63 - 1"));
  return static_cast<int64_t>(value);
}

int64_t read_integer(Reader& reader, uint32_t type) {
  switch (type) {
    case kUint8:
      return reader.number<uint8_t>();
    case kInt8:
      return reader.number<int8_t>();
    case kUint16:
      return reader.number<uint16_t>();
    case kInt16:
      return reader.number<int16_t>();
    case kUint32:
      return reader.number<uint32_t>();
    case kInt32:
      return reader.number<int32_t>();
    case kUint64:
      return widened(reader, reader.number<uint64_t>());
    default:
      return reader.number<int64_t>();
  }
}

double read_float(Reader& reader, uint32_t type) {
  return type == kFloat32 ? reader.number<float>() : reader.number<double>();
}

bool read_bool(Reader& reader) {
  const uint8_t value = reader.number<uint8_t>();
  if (value > 1) reader.bad(base::str("the byte ", int{value}, " is neither true nor false"));
  return value == 1;
}

std::string read_string(Reader& reader) {
  return std::string(reader.text(std::numeric_limits<uint64_t>::max()));
}

// Bytes of the smallest value of this type; 0 for a type that does not exist.
size_t least_bytes(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kString:
    case kUint64:
    case kInt64:
    case kFloat64:
      return 8;
    default:
      return 0;
  }
}

template <typename T, typename ReadOne>
GgufValue read_list(uint64_t count, ReadOne read_one) {
  std::vector<T> out;
  out.reserve(count);
  for (uint64_t i = 0; i < count; ++i) out.push_back(read_one());
  return out;
}

GgufValue read_array(Reader& reader) {
  const uint32_t type = reader.number<uint32_t>();
  const uint64_t count = reader.number<uint64_t>();
  if (type == kArray) reader.bad("arrays inside arrays are not supported");
  if (least_bytes(type) == 0) reader.bad(base::str("unknown value type ", type));
  reader.need_many(count, least_bytes(type));
  switch (type) {
    case kBool:
      return read_list<bool>(count, [&] { return read_bool(reader); });
    case kString:
      return read_list<std::string>(count, [&] { return read_string(reader); });
    case kFloat32:
    case kFloat64:
      return read_list<double>(count, [&] { return read_float(reader, type); });
    default:
      return read_list<int64_t>(count, [&] { return read_integer(reader, type); });
  }
}

GgufValue read_value(Reader& reader) {
  const uint32_t type = reader.number<uint32_t>();
  if (type == kArray) return read_array(reader);
  if (least_bytes(type) == 0) reader.bad(base::str("unknown value type ", type));
  switch (type) {
    case kBool:
      return read_bool(reader);
    case kString:
      return read_string(reader);
    case kFloat32:
    case kFloat64:
      return read_float(reader, type);
    default:
      return read_integer(reader, type);
  }
}

// The tensor with its offset, not yet its place in the file, in `begin`.
TensorInfo read_tensor(Reader& reader) {
  TensorInfo tensor;
  tensor.name = reader.text(kMaxTensorNameBytes);
  reader.set_subject("tensor " + quoted_name(tensor.name));
  const uint32_t dimensions = reader.number<uint32_t>();
  if (dimensions > kMaxDimensions)
    reader.bad(
        base::str("has ", dimensions, " dimensions, at most ", kMaxDimensions, " are allowed"));
  for (uint32_t i = 0; i < dimensions; ++i)
    tensor.shape.push_back(widened(reader, reader.number<uint64_t>()));
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  const uint32_t type = reader.number<uint32_t>();
  const auto dtype = dtype_from(type);
  if (!dtype)
    reader.bad(base::str("element type number ", type,
                         " is not supported; convert the file to one of F32, "
                         "F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K"));
  tensor.dtype = *dtype;
  tensor.begin = reader.number<uint64_t>();
  return tensor;
}

// Turns the offset in `begin` into a checked range of the file.
void place(TensorInfo& tensor, uint64_t alignment, size_t data_begin, size_t file_bytes,
           const std::string& path) {
  const auto bad = [&](const std::string& what) {
    fail(ErrorKind::kCorrupt, kWhere, path, ": tensor ", quoted_name(tensor.name), ": ", what);
  };
  const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
  if (!bytes)
    bad(base::str(
        "its shape is over 2^63 - 1 values or bytes, or its rows are not whole blocks of ",
        dtype_block_values(tensor.dtype), " values, as ", dtype_name(tensor.dtype), " needs"));
  const uint64_t offset = tensor.begin;
  if (offset % alignment != 0)
    bad(base::str("its offset ", offset, " is not a multiple of the alignment ", alignment));
  const size_t room = data_begin <= file_bytes ? file_bytes - data_begin : 0;
  if (data_begin > file_bytes || offset > room || *bytes > room - offset)
    bad(base::str("its ", *bytes, " bytes at offset ", offset, " lie outside the file's ", room,
                  " bytes of data; is it cut off?"));
  tensor.begin = data_begin + offset;
  tensor.end = tensor.begin + *bytes;
}

void check_overlap(const std::vector<TensorInfo>& tensors, const std::string& path) {
  std::vector<const TensorInfo*> order;
  for (const TensorInfo& tensor : tensors)
    if (tensor.begin < tensor.end) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->begin < b->begin; });
  for (size_t i = 1; i < order.size(); ++i)
    if (order[i]->begin < order[i - 1]->end)
      fail(ErrorKind::kCorrupt, kWhere, path, ": tensors ", quoted_name(order[i - 1]->name),
           " and ", quoted_name(order[i]->name), " overlap");
}

}  // namespace

std::vector<std::string> gguf_files(const std::string& path) {
  // "-00001-of-00003.gguf"
  constexpr size_t kDigits = 5, kTail = 1 + kDigits + 4 + kDigits + 5;
  if (path.size() <= kTail) return {path};
  const std::string stem = path.substr(0, path.size() - kTail), tail = path.substr(stem.size());
  const auto number = [&](size_t at) {
    int value = 0;
    for (size_t i = at; i < at + kDigits; ++i)
      value = value < 0 || tail[i] < '0' || tail[i] > '9' ? -1 : value * 10 + (tail[i] - '0');
    return value;
  };
  const int count = number(1 + kDigits + 4);
  if (tail[0] != '-' || number(1) < 1 || number(1) > count ||
      tail.compare(1 + kDigits, 4, "-of-") != 0 || !tail.ends_with(".gguf"))
    return {path};
  std::vector<std::string> files;
  for (int i = 1; i <= count; ++i) {
    std::string name = std::to_string(i);
    name.insert(0, kDigits - name.size(), '0');
    files.push_back(stem + "-" + name + tail.substr(1 + kDigits));
  }
  return files;
}

GgufFile GgufFile::open(const std::string& path) {
  constexpr const char *kCount = "split.count", *kNumber = "split.no",
                       *kTensors = "split.tensors.count";
  GgufFile named = open_part(path);
  const int64_t* given = named.find<int64_t>(kCount);
  if (!given || *given <= 1) return named;
  const std::vector<std::string> files = gguf_files(path);
  const int64_t number = named.find<int64_t>(kNumber) ? named.require<int64_t>(kNumber) : 0;
  if (std::ssize(files) != *given)
    fail(ErrorKind::kNotFound, kWhere, path, ": is part ", number + 1, " of ", *given,
         " of one model ('", kCount,
         "'); expected all of them under the names that llama.cpp gives "
         "them, NAME-00001-of-",
         std::string(5 - std::min<size_t>(5, std::to_string(*given).size()), '0'), *given,
         ".gguf and so on");
  std::optional<GgufFile> whole;
  std::set<std::string> names;
  for (size_t i = 0; i < files.size(); ++i) {
    if (!base::file_exists(files[i]))
      fail(ErrorKind::kNotFound, kWhere, files[i], ": is missing, a part of the same model as ",
           path);
    GgufFile part = open_part(files[i]);
    const int64_t *count = part.find<int64_t>(kCount), *place = part.find<int64_t>(kNumber);
    if (!count || *count != *given || !place || *place != static_cast<int64_t>(i))
      fail(ErrorKind::kCorrupt, kWhere, files[i], ": is not part ", i + 1, " of ", *given,
           " by its '", kNumber, "' and '", kCount, "'");
    for (TensorInfo& tensor : part.tensors_) {
      if (!names.insert(tensor.name).second)
        fail(ErrorKind::kCorrupt, kWhere, files[i], ": tensor ", quoted_name(tensor.name),
             " is in another part too");
      tensor.part = i;
      if (i > 0) whole->tensors_.push_back(std::move(tensor));
    }
    if (i == 0)
      whole.emplace(std::move(part));
    else
      whole->files_.push_back(std::move(part.files_.front()));
  }
  const int64_t* total = whole->find<int64_t>(kTensors);
  if (total && *total != std::ssize(whole->tensors_))
    fail(ErrorKind::kCorrupt, kWhere, files[0], ": its parts hold ", whole->tensors_.size(),
         " tensors, '", kTensors, "' says ", *total);
  return std::move(*whole);
}

GgufFile GgufFile::open_part(const std::string& path) {
  static_assert(std::endian::native == std::endian::little);
  GgufFile out{base::MappedFile(path)};
  const auto bytes = out.file().bytes();
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "GGUF", 4) != 0)
    fail(ErrorKind::kCorrupt, kWhere, path, ": does not begin with GGUF");
  Reader reader(path, bytes);
  reader.number<uint32_t>();
  const uint32_t version = reader.number<uint32_t>();
  if (version != 2 && version != 3)
    reader.bad(base::str("version ", version, " is not supported, expected 2 or 3, little-endian"));
  const uint64_t num_tensors = reader.number<uint64_t>(), num_keys = reader.number<uint64_t>();
  reader.need_many(num_tensors, 8 + 4 + 4 + 8);
  reader.need_many(num_keys, 8 + 4 + 1);

  for (uint64_t i = 0; i < num_keys; ++i) {
    reader.set_subject(base::str("key number ", i));
    std::string key(reader.text(kMaxKeyBytes));
    reader.set_subject("key " + quoted_name(key));
    if (out.metadata_.contains(key)) reader.bad("is given twice");
    out.metadata_.emplace(std::move(key), read_value(reader));
  }
  std::set<std::string> names;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    reader.set_subject(base::str("tensor number ", i));
    out.tensors_.push_back(read_tensor(reader));
    if (!names.insert(out.tensors_.back().name).second) reader.bad("is given twice");
  }

  const int64_t* given = out.find<int64_t>(kAlignmentKey);
  const uint64_t alignment = static_cast<uint64_t>(given ? *given : kDefaultAlignment);
  if (!std::has_single_bit(alignment) || alignment > uint64_t{1} << 31)
    fail(ErrorKind::kCorrupt, kWhere, path, ": key '", kAlignmentKey, "': ", *given,
         " is not a power of two up to 2^31");
  const size_t data_begin = (reader.position() + alignment - 1) / alignment * alignment;
  for (TensorInfo& tensor : out.tensors_) place(tensor, alignment, data_begin, bytes.size(), path);
  check_overlap(out.tensors_, path);
  return out;
}

std::span<const uint8_t> GgufFile::bytes(const TensorInfo& tensor) const {
  return file_of(tensor).bytes().subspan(tensor.begin, tensor.end - tensor.begin);
}

template <typename T>
const T* GgufFile::find(const std::string& key) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) return nullptr;
  const T* value = std::get_if<T>(&it->second);
  if (!value)
    fail(ErrorKind::kCorrupt, kWhere, file().path(), ": key ", quoted_name(key), " holds ",
         kind_name(it->second.index()), ", expected ", kind_name(GgufValue(T{}).index()));
  return value;
}

template <typename T>
const T& GgufFile::require(const std::string& key) const {
  const T* value = find<T>(key);
  if (!value)
    fail(ErrorKind::kCorrupt, kWhere, file().path(), ": key ", quoted_name(key), " is missing");
  return *value;
}

#define ERANK_GGUF_KIND(...)                                                         \
  template const __VA_ARGS__* GgufFile::find<__VA_ARGS__>(const std::string&) const; \
  template const __VA_ARGS__& GgufFile::require<__VA_ARGS__>(const std::string&) const;
ERANK_GGUF_KIND(bool)
ERANK_GGUF_KIND(int64_t)
ERANK_GGUF_KIND(double)
ERANK_GGUF_KIND(std::string)
ERANK_GGUF_KIND(std::vector<int64_t>)
ERANK_GGUF_KIND(std::vector<double>)
ERANK_GGUF_KIND(std::vector<std::string>)
ERANK_GGUF_KIND(std::vector<bool>)
#undef ERANK_GGUF_KIND

}  // namespace erank::data
