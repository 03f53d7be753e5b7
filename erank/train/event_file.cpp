#include "erank/train/event_file.h"

#include <array>
#include <bit>
#include <cstdio>

#include "erank/base/error.h"

namespace erank::train {
namespace {

void put_little_endian(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
}

uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

// Protobuf's wire format: a key is the field's number and how its value is written.
enum Wire { kVarint = 0, kEightBytes = 1, kBytes = 2, kFourBytes = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 128; value >>= 7) out += static_cast<char>(value | 128);
  out += static_cast<char>(value);
}
void put_key(std::string& out, uint64_t field, Wire wire) { put_varint(out, field << 3 | wire); }
void put_bytes(std::string& out, uint64_t field, std::string_view bytes) {
  put_key(out, field, kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

std::string event(int64_t step, double wall_time) {
  std::string out;
  put_key(out, 1, kEightBytes);
  put_little_endian(out, std::bit_cast<uint64_t>(wall_time), 8);
  put_key(out, 2, kVarint);
  put_varint(out, static_cast<uint64_t>(step));
  return out;
}

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    table[i] = crc;
  }
  return table;
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = kTable[(crc ^ static_cast<uint8_t>(byte)) & 255] ^ crc >> 8;
  return ~crc;
}

EventFile::EventFile(const std::string& folder, int64_t first_step, double wall_time) {
  char name[64];
  std::snprintf(name, sizeof name, "/events.out.tfevents.%010lld.erank",
                static_cast<long long>(wall_time));
  path_ = folder + name;
  file_.open(path_, std::ios::binary | std::ios::app);
  std::string version = event(0, wall_time);
  put_bytes(version, 3, "brain.Event:2");
  write_record(version);
  std::string start = event(first_step, wall_time);
  constexpr std::string_view kSessionStart = "\x08\x01";  // status = START
  put_bytes(start, 7, kSessionStart);
  write_record(start);
}

void EventFile::add(int64_t step, double wall_time, std::span<const Figure> figures) {
  std::string summary;
  for (const Figure& figure : figures) {
    std::string value;
    put_bytes(value, 1, figure.name);
    put_key(value, 2, kFourBytes);
    put_little_endian(value, std::bit_cast<uint32_t>(static_cast<float>(figure.value)), 4);
    put_bytes(summary, 1, value);
  }
  std::string record = event(step, wall_time);
  put_bytes(record, 5, summary);
  write_record(record);
}

void EventFile::write_record(std::string_view event) {
  std::string record;
  put_little_endian(record, event.size(), 8);
  put_little_endian(record, masked_crc(record), 4);
  record += event;
  put_little_endian(record, masked_crc(event), 4);
  file_.write(record.data(), std::ssize(record));
  file_.flush();
  if (!file_) base::fail(base::ErrorKind::kExhausted, "train", path_, ": cannot write to it");
}

}  // namespace erank::train
