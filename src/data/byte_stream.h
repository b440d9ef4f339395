// A file as bytes, decompressed on the way when it is gzip or zstd (also several members or frames one after the
// other).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace nsa::data {

class ByteStream {
 public:
  /// Throws naming the path: missing, a folder, unreadable, or named .gz / .zst with other content.
  explicit ByteStream(const std::string& path);
  ~ByteStream();
  /// Up to n bytes; 0 at the end. Throws naming the path when compressed data is damaged or ends early.
  std::size_t read(char* out, std::size_t n);
  /// Bytes of the file consumed so far.
  std::int64_t position() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nsa::data
