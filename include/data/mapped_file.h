// A file mapped read-only, which may become shorter while it is read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace nsa::data {

class MappedFile {
 public:
  /// `what` ("shard", "mask") begins every sentence. Throws when the file is missing, empty or not a regular file.
  MappedFile(std::string what, const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  std::size_t size() const { return size_; }
  /// Bytes [begin, begin + bytes), which lie inside the file as it was when it was opened. Throws when they are no
  /// longer there.
  void copy(void* to, std::size_t begin, std::size_t bytes) const;
  /// XXH3-64 of the size (uint64), then of all bytes, or of a file above 1 MiB of its first 1024 bytes and of 64 pages
  /// of 4096 bytes, the i-th from byte (size - 4096) * i / 63 on.
  std::uint64_t fingerprint() const;

 private:
  bool reaches(std::size_t end) const;
  std::string what_, path_;
  const unsigned char* map_ = nullptr;
  std::size_t size_ = 0;
  std::uint64_t inode_ = 0;
};

}  // namespace nsa::data
