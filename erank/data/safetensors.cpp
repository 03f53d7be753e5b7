#include "erank/data/safetensors.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "erank/base/error.h"
#include "erank/base/json.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::fail;
using base::Json;

constexpr const char* kWhere = "safetensors";
constexpr size_t kLengthBytes = 8;
constexpr size_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kMaxIndexBytes =
    32'000'000;                        // parsed into a tree that may take twenty times as much
constexpr size_t kMaxDimensions = 64;  // what libtorch can hold
constexpr const char* kMetadataKey = "__metadata__";

std::optional<DType> dtype_from(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kI64, DType::kI32,
                            DType::kU8, DType::kI8, DType::kF8_E4M3})
    if (name == dtype_name(dtype)) return dtype;
  return std::nullopt;
}

// Reads the header as it is parsed: whatever is not of the one allowed form stops it there, so that
// a hostile header never becomes a tree many times its size.
class HeaderParser : public nlohmann::json_sax<Json> {
 public:
  // `data_begin`: where the tensors' bytes begin in the file of `file_bytes` bytes.
  HeaderParser(const std::string& path, size_t data_begin, size_t file_bytes)
      : path_(path), data_begin_(data_begin), data_bytes_(file_bytes - data_begin) {}

  std::vector<TensorInfo> tensors;
  std::map<std::string, std::string> metadata;

  bool start_object(size_t) override {
    if (place_ == Place::kStart)
      place_ = Place::kTop;
    else if (place_ == Place::kTop && !name_.empty())
      place_ = name_ == kMetadataKey ? Place::kMetadata : Place::kTensor;
    else
      unexpected("an object");
    if (place_ == Place::kTensor) {
      tensor_ = {};
      tensor_.name = name_;
      offsets_.clear();
      has_dtype_ = has_shape_ = has_offsets_ = false;
    }
    return true;
  }

  bool key(std::string& name) override {
    key_ = name;
    if (place_ == Place::kTop) {
      name_ = name;
      if (name == kMetadataKey && std::exchange(has_metadata_, true))
        fail(ErrorKind::kCorrupt, kWhere, path_, ": ", quoted_name(name), " is given twice");
      if (name.empty()) fail(ErrorKind::kCorrupt, kWhere, path_, ": a tensor without a name");
    } else if (place_ == Place::kTensor) {
      bool* has = name == "dtype"          ? &has_dtype_
                  : name == "shape"        ? &has_shape_
                  : name == "data_offsets" ? &has_offsets_
                                           : nullptr;
      if (!has) bad("unknown key " + quoted_name(name) + "; known: dtype, shape, data_offsets");
      if (*has) bad("key " + quoted_name(name) + " is given twice");
      *has = true;
    }
    return true;
  }

  bool string(std::string& text) override {
    if (place_ == Place::kMetadata) {
      if (!metadata.emplace(key_, text).second)
        fail(ErrorKind::kCorrupt, kWhere, path_, ": metadata key ", quoted_name(key_),
             " is given twice");
    } else if (place_ == Place::kTensor && key_ == "dtype") {
      const auto dtype = dtype_from(text);
      if (!dtype)
        bad("element type " + quoted_name(text) +
            ", expected F32, F16, BF16, F8_E4M3, I64, I32, I8 or U8");
      tensor_.dtype = *dtype;
    } else {
      unexpected("a string");
    }
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype") unexpected("a list");
    place_ = Place::kList;
    return true;
  }

  bool number_unsigned(uint64_t value) override {
    if (place_ != Place::kList) unexpected("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      bad(base::str(key_, " holds ", value, ", which no file can hold"));
    if (key_ == "shape" && tensor_.shape.size() == kMaxDimensions)
      bad(base::str("has more than ", kMaxDimensions, " dimensions"));
    if (key_ == "shape")
      tensor_.shape.push_back(static_cast<int64_t>(value));
    else if (offsets_.size() < 2)
      offsets_.push_back(value);
    else
      bad("data_offsets holds more than [begin, end]");
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) take_tensor();
    place_ = place_ == Place::kTop ? Place::kEnd : Place::kTop;
    return true;
  }

  bool null() override {  // some writers put a null where they have no metadata
    if (place_ != Place::kTop || name_ != kMetadataKey) unexpected("null");
    return true;
  }
  bool boolean(bool) override { unexpected("true or false"); }
  bool number_integer(int64_t) override { unexpected("a negative number"); }
  bool number_float(double, const std::string&) override {
    unexpected("a number with a fraction, or over 2^64");
  }
  bool binary(Json::binary_t&) override { unexpected("binary data"); }
  bool parse_error(size_t position, const std::string&, const Json::exception&) override {
    fail(ErrorKind::kCorrupt, kWhere, path_, ": the header is not JSON at its byte ", position,
         "; is it a safetensors file, downloaded whole?");
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor, kList, kEnd };

  void take_tensor() {
    if (!has_dtype_ || !has_shape_ || offsets_.size() != 2)
      bad("needs dtype, shape and data_offsets [begin, end]");
    const auto bytes = tensor_bytes(tensor_.dtype, tensor_.shape);
    if (!bytes) bad("its shape has more than 2^63 values or bytes");
    const auto [begin, end] = std::pair{offsets_[0], offsets_[1]};
    if (begin > end || end > data_bytes_)
      bad(base::str("its bytes [", begin, ", ", end, ") lie outside the file's ", data_bytes_,
                    " bytes of data; is the file cut off?"));
    if (end - begin != *bytes)
      bad(base::str("has ", end - begin, " bytes, but its type and shape need ", *bytes));
    tensor_.begin = data_begin_ + begin;
    tensor_.end = data_begin_ + end;
    tensors.push_back(std::move(tensor_));
  }

  [[noreturn]] void bad(const std::string& what) const {
    fail(ErrorKind::kCorrupt, kWhere, path_, ": tensor ", quoted_name(name_), ": ", what);
  }
  [[noreturn]] void unexpected(const char* what) const {
    if (place_ == Place::kTensor || place_ == Place::kList)
      bad(base::str(what, " in ", quoted_name(key_), " where the format has none"));
    fail(ErrorKind::kCorrupt, kWhere, path_, ": ", what, " in the header at ", quoted_name(name_),
         " where the format has none");
  }

  const std::string& path_;
  size_t data_begin_, data_bytes_;
  Place place_ = Place::kStart;
  std::string name_, key_;  // the last key of the header, and of the object inside it
  TensorInfo tensor_;
  std::vector<uint64_t> offsets_;
  bool has_dtype_ = false, has_shape_ = false, has_offsets_ = false;  // of this tensor
  bool has_metadata_ = false;
};

void check_names_once(const std::string& path, const std::vector<TensorInfo>& tensors) {
  std::set<std::string_view> names;
  for (const TensorInfo& tensor : tensors)
    if (!names.insert(tensor.name).second)
      fail(ErrorKind::kCorrupt, kWhere, path, ": tensor ", quoted_name(tensor.name),
           " is given twice");
}

// The ranges must cover the file's data exactly, as the format's own reader demands.
void check_coverage(const std::string& path, const std::vector<TensorInfo>& tensors,
                    size_t data_begin, size_t file_bytes) {
  size_t at = data_begin;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.begin != at)
      fail(ErrorKind::kCorrupt, kWhere, path, ": tensor ", quoted_name(tensor.name), " begins ",
           tensor.begin < at ? "inside another tensor" : "after bytes that no tensor uses");
    at = tensor.end;
  }
  if (at != file_bytes)
    fail(ErrorKind::kCorrupt, kWhere, path, ": ", file_bytes - at,
         " bytes at the end belong to no tensor");
}

std::string header_json(const std::vector<TensorInfo>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  base::OrderedJson header = base::OrderedJson::object();
  if (!metadata.empty()) header[kMetadataKey] = metadata;
  std::set<std::string_view> names = {kMetadataKey, ""};
  size_t begin = 0;
  std::string body;
  for (const TensorInfo& tensor : tensors) {
    ERANK_CHECK(dtype_from(dtype_name(tensor.dtype)), "safetensors has no ",
                dtype_name(tensor.dtype));
    ERANK_CHECK(names.insert(tensor.name).second, "tensor name ", tensor.name);
    const auto bytes = tensor_bytes(tensor.dtype, tensor.shape);
    ERANK_CHECK(bytes, "shape of ", tensor.name);
    base::OrderedJson entry;
    entry["dtype"] = dtype_name(tensor.dtype);
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {begin, begin + *bytes};
    header.push_back({tensor.name, std::move(entry)});
    begin += *bytes;
  }
  std::string text = base::dump_json(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data begins at a multiple of eight
  ERANK_CHECK(text.size() <= kMaxHeaderBytes);
  return text;
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile out{base::MappedFile(path)};
  const auto bytes = out.file_.bytes();
  if (bytes.size() < kLengthBytes)
    fail(ErrorKind::kCorrupt, kWhere, path, ": has ", bytes.size(),
         " bytes, too few for a safetensors file");
  uint64_t length = 0;
  for (size_t i = kLengthBytes; i-- > 0;) length = length << 8 | bytes[i];
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes)
    fail(ErrorKind::kCorrupt, kWhere, path, ": claims a header of ", length,
         " bytes; at most 100,000,000 and the file's own ", bytes.size() - kLengthBytes,
         " are possible; is it a safetensors file, downloaded whole?");
  const size_t data_begin = kLengthBytes + length;
  HeaderParser parser(path, data_begin, bytes.size());
  const auto text = bytes.subspan(kLengthBytes, length);
  Json::sax_parse(text.begin(), text.end(), &parser);
  out.metadata_ = std::move(parser.metadata);
  out.tensors_ = std::move(parser.tensors);
  check_names_once(path, out.tensors_);
  std::sort(out.tensors_.begin(), out.tensors_.end(), [](const auto& a, const auto& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  check_coverage(path, out.tensors_, data_begin, bytes.size());
  return out;
}

std::span<const uint8_t> SafetensorsFile::bytes(const TensorInfo& tensor) const {
  return file_.bytes().subspan(tensor.begin, tensor.end - tensor.begin);
}

std::vector<std::string> safetensors_files(const std::string& folder) {
  const std::string single = folder + "/model.safetensors", index = single + ".index.json";
  if (base::file_exists(single)) return {single};
  if (!base::file_exists(index)) {
    const bool pickled = base::file_exists(folder + "/pytorch_model.bin") ||
                         base::file_exists(folder + "/pytorch_model.bin.index.json");
    fail(ErrorKind::kNotFound, kWhere, folder,
         ": has neither model.safetensors nor model.safetensors.index.json",
         pickled ? "; pytorch_model.bin is for Python alone: load the folder with transformers and "
                   "save it again (save_pretrained), which writes safetensors"
                 : "");
  }
  const Json root = base::parse_json(base::read_file(index, kMaxIndexBytes), index);
  const auto map = root.is_object() ? root.find("weight_map") : root.end();
  if (!root.is_object() || map == root.end() || !map->is_object() || map->empty())
    fail(ErrorKind::kCorrupt, kWhere, index, ": has no 'weight_map' from tensors to files");
  std::map<std::string, std::set<std::string>> shards;  // file name -> its tensors
  for (const auto& [tensor, value] : map->items()) {
    const std::string name = value.is_string() ? value.get<std::string>() : "";
    if (!name.ends_with(".safetensors") ||
        name.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos)
      fail(ErrorKind::kCorrupt, kWhere, index, ": tensor ", quoted_name(tensor), " lies in ",
           value.is_string() ? quoted_name(name) : "no file",
           ", expected the name of a .safetensors file in the same folder");
    shards[name].insert(tensor);
  }
  std::vector<std::string> out;
  for (auto& [name, expected] : shards) {
    const std::string path = folder + "/" + name;
    if (!base::file_exists(path))
      fail(ErrorKind::kNotFound, kWhere, path, ": is missing, but ", index, " names it");
    const SafetensorsFile shard = SafetensorsFile::open(path);
    for (const TensorInfo& tensor : shard.tensors())
      if (expected.erase(tensor.name) == 0)
        fail(ErrorKind::kCorrupt, kWhere, path, ": holds tensor ", quoted_name(tensor.name),
             ", which ", index, " does not place there");
    if (!expected.empty())
      fail(ErrorKind::kCorrupt, kWhere, path, ": lacks tensor ", quoted_name(*expected.begin()),
           ", which ", index, " places there");
    out.push_back(path);
  }
  return out;
}

SafetensorsWriter::SafetensorsWriter(const std::string& path,
                                     const std::vector<TensorInfo>& tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path) {
  const std::string header = header_json(tensors, metadata);
  std::string length(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<char>(header.size() >> (8 * i));
  file_.write(length);
  file_.write(header);
  for (const TensorInfo& tensor : tensors) expected_ += *tensor_bytes(tensor.dtype, tensor.shape);
}

void SafetensorsWriter::write(std::span<const uint8_t> bytes) {
  ERANK_CHECK(bytes.size() <= expected_ - written_, "more bytes than were declared");
  file_.write({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  written_ += bytes.size();
}

void SafetensorsWriter::commit() {
  ERANK_CHECK(written_ == expected_, "wrote ", written_, " bytes of ", expected_);
  file_.commit();
}

}  // namespace erank::data
