// A log that grows by whole records: either all bytes of a record are in the file or none.
#pragma once

#include <string>
#include <string_view>

namespace nsa {

class AppendFile {
 public:
  /// Opens for appending, making the file if need be. Throws with path and errno's sentence.
  explicit AppendFile(std::string path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  /// Hands the bytes to the kernel (a killed process loses nothing). On an error (disk full) what was half-written is
  /// cut off again and false returned, with errno's sentence in error().
  bool append(std::string_view bytes);
  /// What was appended is on the disk when this returns true: it survives a power cut. Otherwise as append().
  bool sync();
  const std::string& path() const { return path_; }
  const std::string& error() const { return error_; }

 private:
  std::string path_, error_;
  int fd_ = -1;
};

}  // namespace nsa
