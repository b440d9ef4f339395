#include "train/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

namespace nsa {

namespace {

static_assert(std::endian::native == std::endian::little,
              "event files are little-endian, and written as the machine stores numbers");

constexpr std::array<std::uint32_t, 256> crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) ? (c >> 1) ^ 0x82F63B78u : c >> 1;
    table[i] = c;
  }
  return table;
}

template <class T>
std::string bytes_of_value(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

std::uint32_t masked_crc(std::string_view bytes) {
  const std::uint32_t c = crc32c(bytes);
  return ((c >> 15) | (c << 17)) + 0xa282ead8u;
}

// ---- the protobuf wire format: a field is varint(number << 3 | wire type), then its value

std::string varint(std::uint64_t v) {
  std::string out;
  for (; v >= 128; v >>= 7) out += static_cast<char>(v | 128);
  return out + static_cast<char>(v);
}
std::string key(int number, int wire_type) {
  return varint(static_cast<std::uint64_t>(number) << 3 | static_cast<std::uint64_t>(wire_type));
}
std::string field(int number, double v) { return key(number, 1) + bytes_of_value(v); }
std::string field(int number, float v) { return key(number, 5) + bytes_of_value(v); }
std::string field(int number, std::int64_t v) { return key(number, 0) + varint(static_cast<std::uint64_t>(v)); }
std::string field(int number, const std::string& v) { return key(number, 2) + varint(v.size()) + v; }

std::string wall_time() {
  return field(1, std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count());
}

/// TensorBoard reads every file of a folder named like this, in the order of the names; the process id keeps two quick
/// restarts apart.
std::string event_file_name(const std::string& folder) {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  const auto now =
      std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  return fmt::format("{}/events.out.tfevents.{:010}.{}.{}.0", folder, now, host, getpid());
}

bool has_event_files(const std::string& folder) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error); !error && it != std::filesystem::directory_iterator();
       it.increment(error))
    if (it->path().filename().string().rfind("events.out.tfevents.", 0) == 0) return true;
  return false;
}

}  // namespace

std::uint32_t crc32c(std::string_view bytes) {
  static constexpr auto kTable = crc_table();
  std::uint32_t c = ~0u;
  for (char byte : bytes) c = kTable[(c ^ static_cast<unsigned char>(byte)) & 255] ^ (c >> 8);
  return ~c;
}

std::string tf_record(std::string_view payload) {
  const std::string length = bytes_of_value(static_cast<std::uint64_t>(payload.size()));
  return length + bytes_of_value(masked_crc(length)) + std::string(payload) + bytes_of_value(masked_crc(payload));
}

TensorBoardWriter::TensorBoardWriter(const std::string& folder, std::int64_t restored_step)
    : older_(has_event_files(folder)), file_(event_file_name(folder)) {
  std::string head = tf_record(wall_time() + field(3, std::string("brain.Event:2")));
  // SessionLog {1: status = START (1)} at step s makes TensorBoard drop what it has read of steps >= s.
  if (older_ || restored_step > 0)
    head += tf_record(wall_time() + field(2, restored_step + 1) + field(7, field(1, std::int64_t{1})));
  file_.append(head);
}

bool TensorBoardWriter::scalars(std::int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;  // Summary {1: repeated Value {1: tag, 2: float simple_value}}
  for (const auto& [tag, value] : values) summary += field(1, field(1, tag) + field(2, static_cast<float>(value)));
  return file_.append(tf_record(wall_time() + field(2, step) + field(5, summary)));
}

}  // namespace nsa
