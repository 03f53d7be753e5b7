// erank_parquet.so: Parquet by Apache Arrow, whose headers no other file includes.
#include <arrow/api.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>

#include <algorithm>

#include "erank/base/error.h"
#include "erank/base/json.h"
#include "erank/base/utf8.h"
#include "erank/data/parquet_lines.h"

namespace erank::data {
namespace {

using base::ErrorKind;
using base::OrderedJson;

constexpr const char* kWhere = "read_parquet";
constexpr int64_t kRows = 256;  // rows that are decoded at once

template <typename T>
T get(arrow::Result<T> result, const std::string& path) {
  if (!result.ok()) base::fail(ErrorKind::kCorrupt, kWhere, path, ": ", result.status().message());
  return std::move(result).ValueUnsafe();
}

template <typename Array>
OrderedJson number(const arrow::Array& array, int64_t row) {
  return static_cast<const Array&>(array).Value(row);
}

OrderedJson value_of(const arrow::Array& array, int64_t row);

OrderedJson text_of(std::string_view bytes) {
  if (!base::is_valid_utf8(bytes))
    base::fail(ErrorKind::kInvalidInput, kWhere,
               "bytes that are not UTF-8: ", base::in_quotes(bytes), "; leave the column out");
  return std::string(bytes);
}

OrderedJson list_of(const arrow::Array& values, int64_t begin, int64_t end) {
  OrderedJson list = OrderedJson::array();
  for (int64_t i = begin; i < end; ++i) list.push_back(value_of(values, i));
  return list;
}

template <typename List>
OrderedJson list_in(const arrow::Array& array, int64_t row) {
  const auto& list = static_cast<const List&>(array);
  return list_of(*list.values(), list.value_offset(row), list.value_offset(row + 1));
}

OrderedJson value_of(const arrow::Array& array, int64_t row) {
  if (array.IsNull(row)) return nullptr;
  switch (array.type_id()) {
    case arrow::Type::BOOL:
      return number<arrow::BooleanArray>(array, row);
    case arrow::Type::INT8:
      return number<arrow::Int8Array>(array, row);
    case arrow::Type::INT16:
      return number<arrow::Int16Array>(array, row);
    case arrow::Type::INT32:
      return number<arrow::Int32Array>(array, row);
    case arrow::Type::INT64:
      return number<arrow::Int64Array>(array, row);
    case arrow::Type::UINT8:
      return number<arrow::UInt8Array>(array, row);
    case arrow::Type::UINT16:
      return number<arrow::UInt16Array>(array, row);
    case arrow::Type::UINT32:
      return number<arrow::UInt32Array>(array, row);
    case arrow::Type::UINT64:
      return number<arrow::UInt64Array>(array, row);
    case arrow::Type::FLOAT:
      return number<arrow::FloatArray>(array, row);
    case arrow::Type::DOUBLE:
      return number<arrow::DoubleArray>(array, row);
    case arrow::Type::STRING:
    case arrow::Type::BINARY:
      return text_of(static_cast<const arrow::BinaryArray&>(array).GetView(row));
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY:
      return text_of(static_cast<const arrow::LargeBinaryArray&>(array).GetView(row));
    case arrow::Type::STRING_VIEW:
    case arrow::Type::BINARY_VIEW:
      return text_of(static_cast<const arrow::BinaryViewArray&>(array).GetView(row));
    case arrow::Type::LIST:
      return list_in<arrow::ListArray>(array, row);
    case arrow::Type::LARGE_LIST:
      return list_in<arrow::LargeListArray>(array, row);
    case arrow::Type::FIXED_SIZE_LIST: {
      const auto& list = static_cast<const arrow::FixedSizeListArray&>(array);
      return list_of(*list.values(), list.value_offset(row), list.value_offset(row + 1));
    }
    case arrow::Type::STRUCT: {
      const auto& object = static_cast<const arrow::StructArray&>(array);
      OrderedJson json = OrderedJson::object();
      for (int i = 0; i < object.num_fields(); ++i)
        json[object.struct_type()->field(i)->name()] = value_of(*object.field(i), row);
      return json;
    }
    case arrow::Type::MAP: {
      const auto& map = static_cast<const arrow::MapArray&>(array);
      OrderedJson json = OrderedJson::object();
      for (int64_t i = map.value_offset(row); i < map.value_offset(row + 1); ++i) {
        const OrderedJson key = value_of(*map.keys(), i);
        json[key.is_string() ? key.get<std::string>() : base::dump_json(key)] =
            value_of(*map.items(), i);
      }
      return json;
    }
    case arrow::Type::DICTIONARY: {
      const auto& coded = static_cast<const arrow::DictionaryArray&>(array);
      return value_of(*coded.dictionary(), coded.GetValueIndex(row));
    }
    default: {
      const auto scalar = array.GetScalar(row);
      if (!scalar.ok()) base::fail(ErrorKind::kCorrupt, kWhere, scalar.status().message());
      return text_of((*scalar)->ToString());
    }
  }
}

class Reader : public ParquetLines {
 public:
  explicit Reader(const std::string& path) : path_(path) {
    // A page of each column is in memory at a time.
    parquet::ReaderProperties buffered;
    buffered.enable_buffered_stream();
    parquet::arrow::FileReaderBuilder builder;
    check(builder.OpenFile(path, /*memory_map=*/false, buffered));
    parquet::ArrowReaderProperties properties(/*use_threads=*/false);
    properties.set_batch_size(kRows);
    properties.set_pre_buffer(false);
    file_ = get(builder.properties(properties)->Build(), path);
    batches_ = get(file_->GetRecordBatchReader(), path);
    const auto names = batches_->schema()->field_names();
    for (const auto& name : names)
      if (std::count(names.begin(), names.end(), name) > 1)
        base::fail(ErrorKind::kInvalidInput, kWhere, path, ": two columns are named ",
                   base::in_quotes(name));
  }

  std::string next() override {
    std::string lines;
    while (lines.empty()) {
      std::shared_ptr<arrow::RecordBatch> batch;
      check(batches_->ReadNext(&batch));
      if (!batch) break;
      for (int64_t row = 0; row < batch->num_rows(); ++row) {
        OrderedJson json = OrderedJson::object();
        ++number_;
        for (int i = 0; i < batch->num_columns(); ++i) try {
            json[batch->column_name(i)] = value_of(*batch->column(i), row);
          } catch (const base::Error& e) {
            throw base::Error(e.kind(), base::str(e.what(), " (", path_, ", row ", number_,
                                                  ", column ", batch->column_name(i), ")"));
          }
        lines += base::dump_json(json) + "\n";
      }
    }
    return lines;
  }

 private:
  void check(const arrow::Status& status) const {
    if (!status.ok()) base::fail(ErrorKind::kCorrupt, kWhere, path_, ": ", status.message());
  }

  std::string path_;
  int64_t number_ = 0;  // of the row, from 1
  std::unique_ptr<parquet::arrow::FileReader> file_;
  std::shared_ptr<arrow::RecordBatchReader> batches_;
};

}  // namespace

extern "C" __attribute__((visibility("default"))) ParquetLines* erank_open_parquet(
    const std::string& path) {
  try {
    return new Reader(path);
  } catch (const parquet::ParquetException& e) {
    base::fail(ErrorKind::kCorrupt, kWhere, path, ": ", e.what());
  }
}

}  // namespace erank::data
