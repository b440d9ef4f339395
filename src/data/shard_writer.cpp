#include "data/shard_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/check.h"

namespace nsa::data {
namespace {

constexpr std::size_t kBufferBytes = 1 << 22;

std::string temporary(const std::string& file) { return fmt::format("{}.tmp-{}", file, ::getpid()); }

/// Never over another file: that would be somebody's result.
void rename_or_fail(const std::string& from, const std::string& to) {
  int error = ::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0 ? 0 : errno;
  if (error == EINVAL || not_supported(error)) {  // a file system that cannot promise it
    error = std::filesystem::exists(to) ? EEXIST : std::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
  }
  NSA_CHECK(error != EEXIST, "{} exists by now: another process wrote it meanwhile, and nothing of this one is kept",
            to);
  NSA_CHECK(error == 0, "cannot rename {} to {}: {}", from, to, std::strerror(error));
}

void write_side_car(const std::string& path, const ShardInfo& info) {
  nlohmann::ordered_json json{
      {"tokenizer", info.tokenizer},   {"tokenizer_hash", fmt::format("{:016x}", info.tokenizer_hash)},
      {"vocab_size", info.vocab_size}, {"eot", info.eot},
      {"documents", info.documents},   {"text_bytes", info.text_bytes},
      {"tokens", info.tokens}};
  const std::string text = json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
                           "\n";  // replace: a path need not be UTF-8
  OutputFile file(path);
  file.write(text.data(), text.size());
  file.finish();
}

}  // namespace

ShardWriter::ShardWriter(std::string prefix, ShardInfo info, std::int64_t max_tokens)
    : prefix_(std::move(prefix)),
      info_(std::move(info)),
      max_tokens_(max_tokens),
      width_(info_.vocab_size <= 65536 ? 2 : 4) {
  NSA_CHECK(max_tokens_ >= 1 && max_tokens_ <= INT32_MAX,
            "shards {}: a shard holds 1 to {} tokens (its header counts in 32 bits), not {}", prefix_, INT32_MAX,
            max_tokens_);
  NSA_CHECK(info_.eot >= -1 && info_.eot < info_.vocab_size,
            "shards {}: end of text is token {}, outside the vocabulary of {}", prefix_, info_.eot, info_.vocab_size);
  const std::filesystem::path folder = std::filesystem::path(prefix_).parent_path();
  if (!folder.empty()) make_folders(folder.string());
  lock_.emplace(prefix_ + ".lock", "shards " + prefix_, "wait for it, stop it, or give these another name");
  lock_->leave_nothing();
  const std::string first = fmt::format("{}_{:06}.bin", prefix_, 0);
  for (const std::string& file : {first, side_car_of(first), mask_of(first)}) {
    NSA_CHECK(!std::filesystem::exists(file),
              "shards {}: {} exists already, and a new set may be shorter: remove the old files ({}_*.bin*) or give "
              "another name",
              prefix_, file, prefix_);
  }
  open_shard();  // now rather than after an hour of work: the folder may not be writable
}

ShardWriter::~ShardWriter() {
  file_.reset();
  for (const std::string& file : files_) {
    ::unlink(temporary(file).c_str());
    ::unlink(temporary(side_car_of(file)).c_str());
    ::unlink(temporary(mask_of(file)).c_str());
  }
}

void ShardWriter::open_shard() {
  files_.push_back(fmt::format("{}_{:06}.bin", prefix_, files_.size()));
  file_.emplace(temporary(files_.back()));
  current_ = info_;
  const std::array<std::int32_t, 256> space_for_header{};
  file_->write(space_for_header.data(), sizeof(space_for_header));
}

/// The count is known last, and OutputFile only goes forward.
void ShardWriter::write_header() const {
  const std::array<std::int32_t, 256> header{width_ == 2 ? kMagicU16 : kMagicU32, width_ == 2 ? 1 : 7,
                                             static_cast<std::int32_t>(current_.tokens)};
  const std::string path = temporary(files_.back());
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  const bool written = fd >= 0 &&
                       ::pwrite(fd, header.data(), sizeof(header), 0) == static_cast<ssize_t>(sizeof(header)) &&
                       ::fsync(fd) == 0;
  const int reason = errno;
  if (fd >= 0) ::close(fd);
  NSA_CHECK(written, "cannot write the header of {}: {}", path, std::strerror(reason));
}

void ShardWriter::write_buffer() {
  if (!buffer_.empty()) file_->write(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void ShardWriter::close_shard() {
  write_buffer();
  file_->finish();
  file_.reset();
  write_header();
  if (!bits_.empty()) {
    bits_.resize(static_cast<std::size_t>(current_.tokens), true);
    masks_.push_back(mask_of(files_.back()));
    write_mask(temporary(masks_.back()), MappedFile("shard", temporary(files_.back())), bits_);
    bits_.clear();
  }
  write_side_car(temporary(side_car_of(files_.back())), current_);
  infos_.push_back(current_);
}

/// Into the open shard, which has room for them.
void ShardWriter::put(const std::int32_t* tokens, std::size_t n) {
  const std::size_t width = static_cast<std::size_t>(width_), old = buffer_.size();
  buffer_.resize(old + n * width);
  unsigned char* to = buffer_.data() + old;
  for (std::size_t i = 0; i < n; ++i, to += width) {
    const auto token = static_cast<std::uint32_t>(tokens[i]);
    NSA_CHECK(token < static_cast<std::uint64_t>(info_.vocab_size),
              "shards {}: token {} is outside the vocabulary of {}", prefix_, tokens[i], info_.vocab_size);
    std::memcpy(to, &token, width);  // little-endian: the low bytes come first
  }
  current_.tokens += static_cast<std::int64_t>(n);
  total_.tokens += static_cast<std::int64_t>(n);
  if (buffer_.size() >= kBufferBytes) write_buffer();
}

void ShardWriter::make_room() {
  if (file_ && current_.tokens == max_tokens_) close_shard();
  if (!file_) open_shard();
}

void ShardWriter::append(const std::vector<std::int32_t>& tokens, std::int64_t text_bytes) {
  append(tokens, nullptr, text_bytes);
}

void ShardWriter::append(const std::vector<std::int32_t>& tokens, const std::vector<bool>& counts,
                         std::int64_t text_bytes) {
  NSA_CHECK(counts.size() == tokens.size(), "shards {}: {} tokens, but a mask for {}", prefix_, tokens.size(),
            counts.size());
  append(tokens, &counts, text_bytes);
}

void ShardWriter::append(const std::vector<std::int32_t>& tokens, const std::vector<bool>* counts,
                         std::int64_t text_bytes) {
  // A part that crosses into the next shard spreads its bytes in proportion to its tokens.
  std::size_t done = 0;
  std::int64_t bytes_done = 0;
  while (done < tokens.size()) {
    make_room();
    const std::size_t count = std::min(tokens.size() - done, static_cast<std::size_t>(max_tokens_ - current_.tokens));
    if (counts) {
      bits_.resize(static_cast<std::size_t>(current_.tokens), true);
      const auto from = counts->begin() + static_cast<std::ptrdiff_t>(done);
      bits_.insert(bits_.end(), from, from + static_cast<std::ptrdiff_t>(count));
    }
    put(tokens.data() + done, count);
    done += count;
    const auto upto = static_cast<std::int64_t>(static_cast<double>(text_bytes) * static_cast<double>(done) /
                                                static_cast<double>(tokens.size()));
    current_.text_bytes += upto - bytes_done;
    bytes_done = upto;
  }
  total_.text_bytes += text_bytes;
}

void ShardWriter::end_document() {
  make_room();
  const auto eot = static_cast<std::int32_t>(info_.eot);
  if (eot >= 0) put(&eot, 1);
  ++current_.documents;
  ++total_.documents;
}

void ShardWriter::document(const std::vector<std::int32_t>& tokens, std::int64_t text_bytes) {
  append(tokens, text_bytes);
  end_document();
}

void ShardWriter::finish() {
  if (file_) close_shard();
  std::vector<std::string> renamed;
  const auto rename = [&](const std::string& file) {
    rename_or_fail(temporary(file), file);
    renamed.push_back(file);
  };
  try {  // what stands beside a shard first: one that can be seen is complete
    for (const std::string& file : masks_) rename(file);
    for (const std::string& file : files_) rename(side_car_of(file));
    for (const std::string& file : files_) rename(file);
  } catch (...) {
    for (const std::string& file : renamed) ::unlink(file.c_str());
    throw;
  }
  const std::string folder = std::filesystem::path(prefix_).parent_path().string();
  sync_folder(folder.empty() ? "." : folder);
}

}  // namespace nsa::data
