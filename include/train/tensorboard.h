// TensorBoard event files: scalars only, written without protobuf. A file is a sequence of TFRecords (u64 length,
// masked CRC-32C of the length, payload, masked CRC-32C of the payload; little-endian), each an Event {1: double
// wall_time, 2: int64 step, 3: string file_version | 5: Summary | 7: SessionLog}. Source:
// tensorflow/core/util/event.proto, framework/summary.proto, lib/io/record_writer.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "train/append_file.h"

namespace nsa {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78) of the bytes.
std::uint32_t crc32c(std::string_view bytes);
/// One TFRecord around a payload.
std::string tf_record(std::string_view payload);

class TensorBoardWriter {
 public:
  /// Starts a new event file in `folder`. TensorBoard is told to forget, in the older files of the folder, every step
  /// after `restored_step`.
  TensorBoardWriter(const std::string& folder, std::int64_t restored_step);
  /// Scalars of one step, one record, flushed. False when it could not be written (the file stays whole).
  bool scalars(std::int64_t step, const std::vector<std::pair<std::string, double>>& values);
  const std::string& path() const { return file_.path(); }

 private:
  bool older_;  // event files of earlier launches are there; looked for before there is one of ours
  AppendFile file_;
};

}  // namespace nsa
