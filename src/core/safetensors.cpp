#include "core/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <tuple>

#include "core/fields.h"
#include "core/file.h"
#include "core/json.h"
#include "core/transfer.h"

namespace nsa {

using nlohmann::json;

namespace {

constexpr std::uint64_t kLengthBytes = 8;
constexpr std::uint64_t kMaxHeader = 100'000'000;  // the limit of the reference implementation
constexpr std::size_t kPiece = 1 << 20;            // written and hashed while in the cache

const char* safetensors_name(DType dtype) {
  return dtype == DType::f32 ? "F32" : dtype == DType::bf16 ? "BF16" : "I32";
}

DType dtype_from(const std::string& path, const std::string& name, const json& spelling) {
  for (DType dtype : {DType::f32, DType::bf16, DType::i32}) {
    if (spelling == safetensors_name(dtype)) return dtype;
  }
  fail("{}: tensor \"{}\" has dtype {}; F32, BF16 and I32 can be read, convert the others first", path, name,
       spelling.dump());
}

/// What the header says about one tensor, checked by itself.
struct Entry {
  std::string name;
  DType dtype;
  Shape shape;
  std::uint64_t begin, end;
};

bool is_count(const json& v) { return v.is_number_unsigned() || (v.is_number_integer() && v.get<std::int64_t>() >= 0); }

Entry read_entry(const std::string& path, const std::string& name, const json& info) {
  NSA_CHECK(info.is_object() && info.contains("dtype") && info.contains("shape") && info.contains("data_offsets"),
            "{}: tensor \"{}\" needs dtype, shape and data_offsets in the header", path, name);
  Entry entry{name, dtype_from(path, name, info["dtype"]), {}, 0, 0};
  const json& shape = info["shape"];
  NSA_CHECK(shape.is_array() && std::all_of(shape.begin(), shape.end(), is_count),
            "{}: tensor \"{}\" has the shape {}, expected a list of sizes", path, name, shape.dump());
  NSA_CHECK(shape.size() <= Shape::kMaxRank, "{}: tensor \"{}\" has {} dims, at most {} can be read", path, name,
            shape.size(), Shape::kMaxRank);
  std::uint64_t bytes = bytes_of(entry.dtype);
  for (const json& size : shape) {
    const std::uint64_t n = size.get<std::uint64_t>();
    NSA_CHECK(
        n <= (std::uint64_t{1} << 62) && !__builtin_mul_overflow(bytes, n, &bytes) && bytes <= (std::uint64_t{1} << 62),
        "{}: tensor \"{}\" of shape {} is larger than any file", path, name, shape.dump());
    entry.shape.push_back(static_cast<std::int64_t>(n));
  }
  if (shape.empty()) entry.shape.push_back(1);  // a scalar: rank 0 means absent here
  const json& offsets = info["data_offsets"];
  NSA_CHECK(offsets.is_array() && offsets.size() == 2 && is_count(offsets[0]) && is_count(offsets[1]),
            "{}: tensor \"{}\" has data_offsets {}, expected [begin, end]", path, name, offsets.dump());
  entry.begin = offsets[0].get<std::uint64_t>();
  entry.end = offsets[1].get<std::uint64_t>();
  NSA_CHECK(entry.begin <= entry.end && entry.end - entry.begin == bytes,
            "{}: tensor \"{}\", {} of shape {}, takes {} bytes, but its data_offsets are [{}, {}]", path, name,
            safetensors_name(entry.dtype), shape.dump(), bytes, entry.begin, entry.end);
  return entry;
}

/// Every byte after the header belongs to exactly one tensor (a rule of the format). Sorts `entries` by place.
void check_layout(const std::string& path, std::vector<Entry>& entries, std::uint64_t data_bytes) {
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return std::tie(a.begin, a.end) < std::tie(b.begin, b.end); });
  std::uint64_t end = 0;
  const Entry* previous = nullptr;
  for (const Entry& entry : entries) {
    NSA_CHECK(entry.end <= data_bytes,
              "{}: tensor \"{}\" lies at bytes [{}, {}) of the data, but the file has only {}: it is truncated", path,
              entry.name, entry.begin, entry.end, data_bytes);
    NSA_CHECK(entry.begin >= end, "{}: tensors \"{}\" and \"{}\" overlap", path, previous->name, entry.name);
    NSA_CHECK(entry.begin == end, "{}: {} bytes before tensor \"{}\" belong to no tensor", path, entry.begin - end,
              entry.name);
    end = entry.end;
    previous = &entry;
  }
  NSA_CHECK(end == data_bytes,
            "{}: {} bytes at the end belong to no tensor: something was appended or the header is not this file's",
            path, data_bytes - end);
}

std::map<std::string, std::string> read_metadata(const std::string& path, const json& metadata) {
  NSA_CHECK(metadata.is_object(), "{}: __metadata__ in the header is not an object", path);
  std::map<std::string, std::string> result;
  for (const auto& [key, value] : metadata.items()) {
    NSA_CHECK(value.is_string(), "{}: __metadata__ in the header may hold only strings, \"{}\" is {}", path, key,
              value.type_name());
    result[key] = value.get<std::string>();
  }
  return result;
}

std::string header_text(const std::string& path, const std::vector<NamedTensor>& tensors,
                        const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    NSA_CHECK(name != "__metadata__" && !header.contains(name), "{}: two tensors are named \"{}\"", path, name);
    NSA_CHECK(tensor && (tensor.data || tensor.bytes() == 0), "{}: tensor \"{}\" to be written has no data", path,
              name);
    json shape = json::array();
    for (int i = 0; i < tensor.shape.rank(); ++i) shape.push_back(tensor.dim(i));
    header[name] = {{"dtype", safetensors_name(tensor.dtype)},
                    {"shape", shape},
                    {"data_offsets", {offset, offset + tensor.bytes()}}};
    offset += tensor.bytes();
  }
  try {
    std::string text = header.dump();
    text.append((64 - (kLengthBytes + text.size()) % 64) % 64, ' ');
    return text;
  } catch (const json::exception&) {
    fail("{}: a tensor's name or the metadata to be written is not UTF-8", path);
  }
}

}  // namespace

SafetensorsReader::SafetensorsReader(const std::string& path) : path_(path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  NSA_CHECK(fd >= 0, "cannot read {}: {}", path, std::strerror(errno));
  struct stat info;
  const bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  size_ = regular ? static_cast<std::size_t>(info.st_size) : 0;
  void* map = size_ >= kLengthBytes ? mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0) : nullptr;
  const int error = errno;
  close(fd);
  NSA_CHECK(regular, "{} is not a file", path);
  NSA_CHECK(size_ >= kLengthBytes, "{} has {} bytes: empty or truncated, not a safetensors file", path, size_);
  NSA_CHECK(map != MAP_FAILED, "cannot map {}: {}", path, std::strerror(error));
  map_ = map;
  try {
    open_tensors();
  } catch (...) {  // no destructor runs for a half-made object
    munmap(map_, size_);
    throw;
  }
}

SafetensorsReader::~SafetensorsReader() { munmap(map_, size_); }

void SafetensorsReader::open_tensors() {
  const unsigned char* bytes = static_cast<const unsigned char*>(map_);
  std::uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | bytes[i];
  NSA_CHECK(
      length <= size_ - kLengthBytes && length <= kMaxHeader,
      "{}: its first 8 bytes announce a header of {} bytes, the file has {}: truncated, or not a safetensors file",
      path_, length, size_);
  const std::string text(reinterpret_cast<const char*>(bytes) + kLengthBytes, length);
  NSA_CHECK(!text.empty() && text[0] == '{', "{}: the header does not start with '{{': not a safetensors file", path_);
  const json header = parse_json(text, path_, Comments::refuse, Exit::error);
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name == "__metadata__") {
      metadata_ = read_metadata(path_, value);
    } else {
      entries.push_back(read_entry(path_, name, value));
    }
  }
  const std::uint64_t start = kLengthBytes + length;
  check_layout(path_, entries, size_ - start);
  for (const Entry& entry : entries) {
    NSA_CHECK(entry.begin == entry.end || (start + entry.begin) % bytes_of(entry.dtype) == 0,
              "{}: tensor \"{}\" starts at byte {}, which is not a multiple of its {}-byte elements", path_, entry.name,
              start + entry.begin, bytes_of(entry.dtype));
    tensors_[entry.name] = {static_cast<char*>(map_) + start + entry.begin, entry.dtype, entry.shape};
  }
}

const Tensor& SafetensorsReader::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [other, tensor] : tensors_) names.push_back(other);
  const std::string closest = did_you_mean(name, names);
  fail("{} has no tensor \"{}\"{}", path_, name,
       closest.empty() ? fmt::format(" (it has {} others)", names.size())
                       : fmt::format("; did you mean \"{}\"?", closest));
}

void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<void(const void*, std::size_t)>& on_bytes) {
  std::vector<NamedTensor> placed =
      tensors;  // the format allows no gaps: 2-byte elements go last, or 4-byte ones after them might be misaligned
  std::stable_sort(placed.begin(), placed.end(), [](const NamedTensor& a, const NamedTensor& b) {
    return bytes_of(a.tensor.dtype) > bytes_of(b.tensor.dtype);
  });
  const std::string header = header_text(path, placed, metadata);
  NSA_CHECK(header.size() <= kMaxHeader, "{}: a header of {} bytes is more than the format allows ({})", path,
            header.size(), kMaxHeader);
  OutputFile file(path);
  const auto put = [&](const void* data, std::size_t bytes) {
    for (std::size_t done = 0; done < bytes; done += kPiece) {
      const char* piece = static_cast<const char*>(data) + done;
      const std::size_t n = std::min(kPiece, bytes - done);
      file.write(piece, n);
      if (on_bytes) on_bytes(piece, n);
    }
  };
  unsigned char length[kLengthBytes];
  for (std::size_t i = 0; i < kLengthBytes; ++i) length[i] = static_cast<unsigned char>(header.size() >> (8 * i));
  put(length, sizeof length);
  put(header.data(), header.size());
  std::vector<char> piece;
  for (const auto& [name, tensor] : placed) {
    if (tensor.where == Where::cpu) {
      put(tensor.data, tensor.bytes());
      continue;
    }
    for (std::size_t done = 0; done < tensor.bytes(); done += piece.size()) {
      piece.resize(std::min(kPiece, tensor.bytes() - done));
      download_part(piece.data(), tensor, done, piece.size());
      put(piece.data(), piece.size());
    }
  }
  file.finish();
}

}  // namespace nsa
