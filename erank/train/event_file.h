// TensorBoard's event files: figures over steps, for `tensorboard --logdir`.
//
// A file is a sequence of records as TensorFlow writes them
// (tensorflow/core/lib/io/record_writer.h): the length n (u64), its checksum (u32), n bytes, their
// checksum (u32), all little-endian. A checksum is CRC32C, rotated right by 15 bits plus
// 0xa282ead8. A record is a protobuf message Event (tensorflow/core/util/event.proto): wall_time =
// 1 (double), step = 2 (int64), and one of file_version = 3 (string), summary = 5 {value = 1 {tag =
// 1, simple_value = 2 (float)}}, session_log = 7 {status = 1}.
#pragma once

#include <cstdint>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

namespace erank::train {

// One run's file, events.out.tfevents.SECONDS.erank in its folder; a resumed run adds another one.
// A reader sees each event when add() returns. Not thread-safe.
class EventFile {
 public:
  struct Figure {
    std::string_view name;  // "reward"; a slash makes a group of charts
    double value;           // stored as fp32
  };

  // `first_step`: readers forget what earlier files of the folder say of it and of later steps.
  // `wall_time`: now, in seconds since 1970. Throws Error{kExhausted} when it cannot be written.
  EventFile(const std::string& folder, int64_t first_step, double wall_time);

  void add(int64_t step, double wall_time, std::span<const Figure> figures);
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::ofstream file_;

  void write_record(std::string_view event);
};

// CRC-32C (Castagnoli) of RFC 3720.
uint32_t crc32c(std::string_view bytes);

}  // namespace erank::train
