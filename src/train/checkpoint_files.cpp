#include "train/checkpoint_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <utility>

#include "core/device.h"
#include "core/file.h"
#include "core/json.h"
#include "core/parallel.h"

namespace nsa {

using nlohmann::json;
using nlohmann::ordered_json;

namespace {

constexpr const char* kModel = "model.safetensors";
constexpr const char* kOptimizer = "optimizer-0000-of-0001.safetensors";
constexpr const char* kState = "state.json";
constexpr const char* kManifest = "manifest.json";
constexpr int kFormat = 1;
constexpr const char* kLater = "tokenizer_hash";  // not in the states of earlier versions: then it stays 0

/// Size and XXH3 (64 bits) of the bytes seen so far.
class Checksum {
 public:
  Checksum() : state_(XXH3_createState()) {
    NSA_CHECK(state_ && XXH3_64bits_reset(state_.get()) == XXH_OK, "checksum: out of memory");
  }
  void add(const void* data, std::size_t bytes) {
    XXH3_64bits_update(state_.get(), data, bytes);
    bytes_ += bytes;
  }
  ordered_json entry() const {
    return {{"bytes", bytes_}, {"xxh3", fmt::format("{:016x}", XXH3_64bits_digest(state_.get()))}};
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* s) const { XXH3_freeState(s); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
  std::uint64_t bytes_ = 0;
};

/// The members of TrainState, written once: reading and writing state.json are loops over it.
template <class State, class F>
void each_member(State& s, F&& f) {
  f("step", s.step);
  f("tokens", s.tokens);
  f("position", s.position);
  f("optimizer_steps", s.optimizer_steps);
  f("skipped", s.skipped);
  f("skipped_in_row", s.skipped_in_row);
  f("seconds", s.seconds);
  f("recent_losses", s.recent_losses);
  f("recent_norms", s.recent_norms);
  f("data_fingerprint", s.data_fingerprint);
  f(kLater, s.tokenizer_hash);
  f("config", s.config);
}

template <class T>
ordered_json packed(const T& v) {
  return v;
}
/// JSON has no NaN and no infinity: they are written as strings.
template <>
ordered_json packed(const double& v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v > 0 ? "inf" : "-inf";
  return v;
}
template <>
ordered_json packed(const std::vector<double>& v) {
  ordered_json list = ordered_json::array();
  for (double x : v) list.push_back(packed(x));
  return list;
}

[[noreturn]] void fail_member(const std::string& path, const char* name, const char* expected) {
  fail("{}: \"{}\" is missing or not {}: written by another program or version", path, name, expected);
}
void unpack(const std::string& path, const char* name, const json& from, std::int64_t& v) {
  if (!from.is_number_integer()) fail_member(path, name, "an integer");
  v = from.get<std::int64_t>();
}
void unpack(const std::string& path, const char* name, const json& from, std::uint64_t& v) {
  if (!from.is_number_unsigned()) fail_member(path, name, "an unsigned integer");
  v = from.get<std::uint64_t>();
}
void unpack(const std::string& path, const char* name, const json& from, double& v) {
  if (from == "nan" || from == "inf" || from == "-inf") {
    v = from == "nan" ? std::nan("") : from == "inf" ? HUGE_VAL : -HUGE_VAL;
    return;
  }
  if (!from.is_number()) fail_member(path, name, "a number");
  v = from.get<double>();
}
void unpack(const std::string& path, const char* name, const json& from, std::string& v) {
  if (!from.is_string()) fail_member(path, name, "a string");
  v = from.get<std::string>();
}
void unpack(const std::string& path, const char* name, const json& from, std::vector<double>& v) {
  if (!from.is_array()) fail_member(path, name, "a list of numbers");
  v.assign(from.size(), 0.0);
  for (std::size_t i = 0; i < v.size(); ++i) unpack(path, name, from[i], v[i]);
}

ordered_json write_text(const std::string& path, const std::string& text) {
  OutputFile file(path);
  Checksum sum;
  file.write(text.data(), text.size());
  sum.add(text.data(), text.size());
  file.finish();
  return sum.entry();
}

ordered_json write_tensors(const std::string& path, const std::vector<NamedTensor>& tensors) {
  Checksum sum;
  write_safetensors(path, tensors, {{"format", "pt"}},
                    [&](const void* data, std::size_t bytes) { sum.add(data, bytes); });
  return sum.entry();
}

/// Checksum of a file that is there. Throws when it cannot be read.
ordered_json checksum_of(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  NSA_CHECK(fd >= 0, "cannot read {}: {}", path, std::strerror(errno));
  posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  Checksum sum;
  std::vector<char> piece(1 << 20);
  ssize_t n = 0;
  while ((n = read(fd, piece.data(), piece.size())) > 0 || (n < 0 && errno == EINTR)) {
    if (n > 0) sum.add(piece.data(), static_cast<std::size_t>(n));
  }
  const int error = errno;
  close(fd);
  NSA_CHECK(n == 0, "cannot read {}: {}", path, std::strerror(error));
  return sum.entry();
}

std::string file_complaint(const std::string& folder, const std::string& name, const json& entry, Depth depth) {
  if (name.find('/') != std::string::npos || !entry.is_object() || !entry.contains("bytes") ||
      !entry.contains("xxh3") || !entry["bytes"].is_number_unsigned()) {
    return fmt::format("manifest.json says nothing sensible about \"{}\"", name);
  }
  const std::string path = folder + "/" + name;
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return fmt::format("{}: {}", name, std::strerror(errno));
  const auto bytes = entry["bytes"].get<std::uint64_t>();
  if (static_cast<std::uint64_t>(info.st_size) != bytes)
    return fmt::format("{} has {} bytes, the manifest says {}: it is truncated or replaced", name, info.st_size, bytes);
  if (depth == Depth::sizes || json(checksum_of(path))["xxh3"] == entry["xxh3"]) return "";
  return fmt::format("{} does not have the checksum the manifest says: its bytes were damaged or changed", name);
}

}  // namespace

void write_checkpoint_files(const std::string& folder, const TrainState& state, const std::vector<NamedTensor>& weights,
                            const std::vector<NamedTensor>& optimizer) {
  NSA_CHECK(is_utf8(state.config), "checkpoint: the config text of the run is not UTF-8");
  ordered_json values = {{"format", kFormat}};
  each_member(state, [&](const char* name, const auto& member) { values[name] = packed(member); });
  ordered_json files;
  files[kModel] = write_tensors(folder + "/" + kModel, weights);
  files[kOptimizer] = write_tensors(folder + "/" + kOptimizer, optimizer);
  files[kState] = write_text(folder + "/" + kState, values.dump(2) + "\n");
  const ordered_json manifest = {{"step", state.step}, {"files", files}};
  write_text(folder + "/" + kManifest, manifest.dump(2) + "\n");
  sync_folder(folder);
}

std::string complaint(const std::string& folder, std::int64_t step, Depth depth, int threads) {
  try {
    const std::string path = folder + "/" + kManifest;
    const json manifest = parse_json(read_file(path), path, Comments::refuse, Exit::error);
    if (!manifest.is_object() || !manifest.contains("step") || !manifest.contains("files") ||
        !manifest["files"].is_object())
      return "manifest.json lacks step or files";
    if (manifest["step"] != step) return fmt::format("manifest.json is of step {}", manifest["step"].dump());
    for (const char* name : {kModel, kOptimizer, kState}) {
      if (!manifest["files"].contains(name)) return fmt::format("manifest.json does not list {}", name);
    }
    std::vector<std::pair<std::string, json>> files;
    for (const auto& [name, entry] : manifest["files"].items()) files.emplace_back(name, entry);
    std::vector<std::string> reasons(files.size());
    // One stream of checksums does not fill the disk.
    parallel_for(threads, static_cast<std::int64_t>(files.size()), [&](std::int64_t i, int) {
      const auto& [name, entry] = files[static_cast<std::size_t>(i)];
      std::string& reason = reasons[static_cast<std::size_t>(i)];
      try {
        reason = file_complaint(folder, name, entry, depth);
      } catch (const Error& error) {
        reason = error.what();
      }
    });
    for (const std::string& reason : reasons) {
      if (!reason.empty()) return reason;
    }
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TrainState load_state(const CheckpointFile& checkpoint) {
  const std::string path = checkpoint.path + "/" + kState;
  const json values = parse_json(read_file(path), path, Comments::refuse, Exit::error);
  NSA_CHECK(values.is_object() && values.contains("format") && values["format"] == kFormat,
            "{} is not a training state of format {}: written by another version", path, kFormat);
  TrainState state;
  each_member(state, [&](const char* name, auto& member) {
    if (name == kLater && !values.contains(name)) return;
    unpack(path, name, values.contains(name) ? values[name] : json(), member);
  });
  return state;
}

std::string model_file(const CheckpointFile& checkpoint) { return checkpoint.path + "/" + kModel; }
std::string optimizer_file(const CheckpointFile& checkpoint) { return checkpoint.path + "/" + kOptimizer; }

}  // namespace nsa
