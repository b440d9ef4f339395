// Files that survive a crash. Every error names the path and errno's sentence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace nsa {

/// The whole file. Throws when it cannot be read.
std::string read_file(const std::string& path);
/// Writes path.tmp-PID, fsyncs, renames over path, fsyncs the folder: readers see the old or the new content, never
/// half.
void write_file_atomic(const std::string& path, const std::string& content);
/// A new file being written front to back. Unless finish() succeeded, the destructor removes it: no half-written file
/// stays behind.
class OutputFile {
 public:
  /// Creates or empties `path`.
  explicit OutputFile(const std::string& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  /// Long files go to the disk while they are being written.
  void write(const void* data, std::size_t bytes);
  /// fsync and close.
  void finish();

 private:
  void write_behind();

  std::string path_;
  int fd_ = -1;
  std::int64_t written_ = 0, started_ = 0,
               on_disk_ = 0;  ///< bytes written, of these on their way to the disk, of these there
};

/// Is this the errno of a file system that does not know the request at all (flock, fsync of a folder, ...), rather
/// than of one that failed? Then there is a weaker guarantee, not a failure.
bool not_supported(int error);
/// fsync of a folder, so that a rename inside it is on disk. Throws when the disk fails; where the file system does not
/// sync folders it returns why, in a sentence, and "" otherwise.
std::string sync_folder(const std::string& path);
/// A path as a shell would read it: "~" and "~/..." begin in the home folder, "~NAME/..." in that user's. Anything else
/// comes back as it is. Throws when HOME is not set.
std::string expand_home(const std::string& path);
/// mkdir -p. Throws naming the part that cannot be made and why.
void make_folders(const std::string& path);

}  // namespace nsa
