#include "data/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string_view>
#include <vector>

#include "core/check.h"

namespace nsa::data {
namespace {

enum class Packing { none, gzip, zstd };

constexpr std::size_t kInputBytes = 1 << 18;

}  // namespace

struct ByteStream::Impl {
  std::string path;
  int fd = -1;
  Packing packing = Packing::none;
  std::vector<char> input;
  std::size_t begin = 0, end = 0;  // unread part of input
  std::int64_t consumed = 0;
  bool inside = false;  // a member or frame has begun and not ended
  z_stream gzip{};
  ZSTD_DCtx* zstd = nullptr;

  explicit Impl(const std::string& file) : path(file), input(kInputBytes) {}
  ~Impl() {
    if (fd >= 0) ::close(fd);
    if (packing == Packing::gzip) inflateEnd(&gzip);
    ZSTD_freeDCtx(zstd);
  }
  void open();
  bool refill();
  std::size_t take_plain(char* out, std::size_t n);
  std::size_t take_gzip(char* out, std::size_t n);
  std::size_t take_zstd(char* out, std::size_t n);
  [[noreturn]] void no_memory(const char* what) const {
    fail("{}: out of memory at byte {}: {} needs more than there is (the file is not damaged)", path, consumed, what);
  }
  [[noreturn]] void damaged(const char* kind, const char* reason) const {
    fail("{}: damaged {} data at byte {}: {}", path, kind, consumed, reason);
  }
};

/// False at the end of the file.
bool ByteStream::Impl::refill() {
  if (begin < end) return true;
  begin = end = 0;
  while (true) {
    const ssize_t n = ::read(fd, input.data(), input.size());
    if (n < 0 && errno == EINTR) continue;
    NSA_CHECK(n >= 0, "{}: cannot be read: {}", path, std::strerror(errno));
    end = static_cast<std::size_t>(n);
    return n > 0;
  }
}

void ByteStream::Impl::open() {
  fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  NSA_CHECK(fd >= 0, "{}: cannot be opened: {}", path, std::strerror(errno));
  struct stat status {};
  NSA_CHECK(::fstat(fd, &status) == 0 && !S_ISDIR(status.st_mode), "{}: this is a folder, not a file", path);
  refill();
  const std::string_view head(input.data(), std::min<std::size_t>(end, 4));
  const bool skippable_frame =
      head.size() == 4 && (head[0] & 0xF0) == 0x50 && head.substr(1) == "\x2a\x4d\x18";  // pzstd begins with one
  if (head.substr(0, 2) == "\x1f\x8b") {
    packing = Packing::gzip;
    NSA_CHECK(inflateInit2(&gzip, 15 + 16) == Z_OK, "{}: zlib cannot start: out of memory",
              path);  // 16: expect a gzip header
  } else if (head == "\x28\xb5\x2f\xfd" || skippable_frame) {
    packing = Packing::zstd;
    zstd = ZSTD_createDCtx();
    NSA_CHECK(zstd, "{}: zstd cannot start: out of memory", path);
    ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, 31);  // files made with --long
  }
  const std::string extension = std::filesystem::path(path).extension().string();
  NSA_CHECK(packing == Packing::gzip || extension != ".gz" || end == 0,
            "{}: named .gz, but it does not begin as gzip data does", path);
  NSA_CHECK(packing == Packing::zstd || extension != ".zst" || end == 0,
            "{}: named .zst, but it does not begin as zstd data does", path);
}

std::size_t ByteStream::Impl::take_plain(char* out, std::size_t n) {
  if (!refill()) return 0;
  const std::size_t count = std::min(n, end - begin);
  std::memcpy(out, input.data() + begin, count);
  begin += count;
  consumed += static_cast<std::int64_t>(count);
  return count;
}

std::size_t ByteStream::Impl::take_gzip(char* out, std::size_t n) {
  while (true) {
    if (!refill()) {
      if (inside) damaged("gzip", "the file ends early");
      return 0;
    }
    if (!inside) {
      if (consumed > 0 && input[begin] == 0) {  // padding after the last member, as tar and tapes leave it
        ++begin;
        ++consumed;
        continue;
      }
      inflateReset(&gzip);
    }
    inside = true;
    gzip.next_in = reinterpret_cast<Bytef*>(input.data() + begin);
    gzip.avail_in = static_cast<uInt>(end - begin);
    gzip.next_out = reinterpret_cast<Bytef*>(out);
    gzip.avail_out = static_cast<uInt>(std::min<std::size_t>(n, 1u << 30));
    const uInt room = gzip.avail_out;
    const int status = inflate(&gzip, Z_NO_FLUSH);
    if (status == Z_MEM_ERROR) no_memory("unpacking");
    if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR)
      damaged("gzip", gzip.msg ? gzip.msg : "not gzip");
    const std::size_t used = end - begin - gzip.avail_in;
    begin += used;
    consumed += static_cast<std::int64_t>(used);
    if (status == Z_STREAM_END) inside = false;
    if (gzip.avail_out < room) return room - gzip.avail_out;
  }
}

std::size_t ByteStream::Impl::take_zstd(char* out, std::size_t n) {
  while (true) {
    const bool more = refill();
    if (!more && !inside) return 0;
    ZSTD_inBuffer from{input.data() + begin, end - begin, 0};
    ZSTD_outBuffer to{out, n, 0};
    const std::size_t status = ZSTD_decompressStream(zstd, &to, &from);
    const ZSTD_ErrorCode error = ZSTD_getErrorCode(status);
    if (error == ZSTD_error_memory_allocation || error == ZSTD_error_frameParameter_windowTooLarge) {
      no_memory("unpacking (up to 2 GiB of window where zstd --long or --ultra made the file)");
    }
    if (ZSTD_isError(status)) damaged("zstd", ZSTD_getErrorName(status));
    begin += from.pos;
    consumed += static_cast<std::int64_t>(from.pos);
    inside = status != 0;
    if (to.pos > 0) return to.pos;
    if (!more && inside) damaged("zstd", "the file ends early");
  }
}

ByteStream::ByteStream(const std::string& path) : impl_(std::make_unique<Impl>(path)) { impl_->open(); }
ByteStream::~ByteStream() = default;

std::size_t ByteStream::read(char* out, std::size_t n) {
  switch (impl_->packing) {
    case Packing::gzip: return impl_->take_gzip(out, n);
    case Packing::zstd: return impl_->take_zstd(out, n);
    case Packing::none: break;
  }
  return impl_->take_plain(out, n);
}

std::int64_t ByteStream::position() const { return impl_->consumed; }

}  // namespace nsa::data
