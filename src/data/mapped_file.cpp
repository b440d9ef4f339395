#include "data/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/guarded_copy.h"

namespace nsa::data {

MappedFile::MappedFile(std::string what, const std::string& path) : what_(std::move(what)), path_(path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  NSA_CHECK(fd >= 0, "{} {}: cannot be opened: {}", what_, path, std::strerror(errno));
  struct stat status {};
  const bool known = ::fstat(fd, &status) == 0;
  const bool regular = known && S_ISREG(status.st_mode);
  size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
  inode_ = known ? status.st_ino : 0;
  void* map = size_ ? ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0) : nullptr;
  const int reason = errno;
  ::close(fd);
  NSA_CHECK(regular, "{} {}: {}", what_, path,
            known && S_ISDIR(status.st_mode) ? "this is a folder; name the files in it, as in folder/*.bin"
                                             : "not a regular file");
  NSA_CHECK(size_ > 0, "{} {}: empty file", what_, path);
  NSA_CHECK(map != MAP_FAILED, "{} {}: cannot be mapped into memory: {}", what_, path, std::strerror(reason));
  map_ = static_cast<const unsigned char*>(map);
}

MappedFile::~MappedFile() {
  if (map_) ::munmap(const_cast<unsigned char*>(map_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : what_(std::move(other.what_)),
      path_(std::move(other.path_)),
      map_(std::exchange(other.map_, nullptr)),
      size_(other.size_),
      inode_(other.inode_) {}

// The page in which a shortened file ends stays mapped beyond its end and reads as zeros, which are tokens. Another
// file under the same name does not matter: the map is still of the old one.
bool MappedFile::reaches(std::size_t end) const {
  struct stat now {};
  return ::stat(path_.c_str(), &now) != 0 || now.st_ino != inode_ || static_cast<std::size_t>(now.st_size) >= end;
}

void MappedFile::copy(void* to, std::size_t begin, std::size_t bytes) const {
  NSA_CHECK(guarded_copy(to, map_ + begin, bytes) && reaches(begin + bytes),
            "{} {}: had {} bytes when it was opened and no longer has bytes {} to {}: it was made shorter "
            "meanwhile, or its disk cannot be read",
            what_, path_, size_, begin, begin + bytes);
}

std::uint64_t MappedFile::fingerprint() const {
  constexpr std::size_t kWhole = 1 << 20, kHead = 1024, kPage = 4096, kPages = 64;
  std::vector<unsigned char> sample(std::min(size_, kWhole));
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), XXH3_freeState);
  XXH3_64bits_reset(state.get());
  const auto update = [&](std::size_t from, std::size_t bytes) {
    copy(sample.data(), from, bytes);
    XXH3_64bits_update(state.get(), sample.data(), bytes);
  };
  const std::uint64_t size = size_;
  XXH3_64bits_update(state.get(), &size, sizeof(size));
  if (size_ <= kWhole) {
    update(0, size_);
  } else {
    update(0, kHead);
    for (std::size_t i = 0; i < kPages; ++i) update((size_ - kPage) * i / (kPages - 1), kPage);
  }
  return XXH3_64bits_digest(state.get());
}

}  // namespace nsa::data
