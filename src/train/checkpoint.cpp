#include "train/checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <set>

#include "core/file.h"
#include "core/parallel.h"
#include "core/transfer.h"
#include "train/checkpoint_files.h"

namespace nsa {

namespace fs = std::filesystem;

namespace {

/// What a name inside checkpoints/ says. Anything else there is not ours and is left alone.
struct Folder {
  /// step_X; step_X.old-ID, about to be replaced by a new step_X; step_X.tmp-ID, half-written or half-deleted
  enum class Kind { complete, replaced, temporary } kind;
  std::int64_t step;
  std::string name, path;
};

std::string name_of_step(std::int64_t step) { return fmt::format("step_{:08}", step); }

bool parse_folder(const std::string& root, const std::string& name, Folder& folder) {
  constexpr std::size_t kPrefix = 5;  // "step_"
  if (name.compare(0, kPrefix, "step_") != 0) return false;
  std::size_t end = kPrefix;
  while (end < name.size() && name[end] >= '0' && name[end] <= '9') ++end;
  if (end < kPrefix + 8 || end > kPrefix + 18) return false;
  const std::string rest = name.substr(end);
  if (!rest.empty() && rest.compare(0, 5, ".old-") != 0 && rest.compare(0, 5, ".tmp-") != 0) return false;
  const auto kind = rest.empty()     ? Folder::Kind::complete
                    : rest[1] == 'o' ? Folder::Kind::replaced
                                     : Folder::Kind::temporary;
  folder = {kind, std::stoll(name.substr(kPrefix, end - kPrefix)), name, root + "/" + name};
  return true;
}

/// Newest step first, and of one step the one in place before the one it replaces. Empty when the folder is not there.
std::vector<Folder> list_folders(const std::string& root) {
  std::vector<Folder> folders;
  std::error_code error;
  fs::directory_iterator it(root, error);
  if (error == std::errc::no_such_file_or_directory) {
    NSA_CHECK(!fs::is_symlink(root, error), "{} leads to {}, which is not there: is its disk mounted?", root,
              fs::read_symlink(root, error).string());
    return folders;
  }
  for (; !error && it != fs::directory_iterator(); it.increment(error)) {
    Folder folder;
    if (parse_folder(root, it->path().filename().string(), folder)) folders.push_back(folder);
  }
  NSA_CHECK(!error, "cannot list the checkpoints in {}: {}", root,
            error.message());  // an empty answer would start the run anew
  std::sort(folders.begin(), folders.end(),
            [](const Folder& a, const Folder& b) { return a.step != b.step ? a.step > b.step : a.name < b.name; });
  return folders;
}

using Sentences = std::vector<std::string>;

void rename_folder(const std::string& from, const std::string& to) {
  NSA_CHECK(rename(from.c_str(), to.c_str()) == 0, "cannot rename {} to {}: {}", from, to, std::strerror(errno));
}

/// The first of BASE, BASE-1, BASE-2, ... that `take` gets. `take` sets errno; EEXIST and ENOTEMPTY mean that a
/// leftover which could not be deleted has the name. "" with errno on any other error.
template <class Take>
std::string first_free(const std::string& base, Take&& take) {
  for (int n = 0; n < 1000; ++n) {
    const std::string name = n == 0 ? base : fmt::format("{}-{}", base, n);
    if (take(name)) return name;
    if (errno != EEXIST && errno != ENOTEMPTY) break;
  }
  return "";
}

std::string temporary_name(const std::string& root, std::int64_t step) {
  return fmt::format("{}/{}.tmp-{}", root, name_of_step(step), getpid());
}

/// Deletes what can be deleted: one file that stays must not keep the others.
void delete_folder(const std::string& path, Sentences& warnings) {
  std::vector<fs::path> entries;
  std::error_code error, first;
  for (fs::directory_iterator it(path, error); !error && it != fs::directory_iterator(); it.increment(error))
    entries.push_back(it->path());
  for (const fs::path& entry : entries) {
    if (unlink(entry.c_str()) == 0) continue;
    error = std::error_code(errno, std::generic_category());
    std::error_code unknown;
    if (fs::is_directory(fs::symlink_status(entry, unknown))) fs::remove_all(entry, error);
    if (error && !first) first = error;
  }
  if (rmdir(path.c_str()) == 0 || errno == ENOENT) return;
  if (errno == ENOTDIR && unlink(path.c_str()) == 0) return;  // somebody's file with the name of one of our folders
  if (!first) first = std::error_code(errno, std::generic_category());
  warnings.push_back(fmt::format("cannot delete {}: {}", path, first.message()));
}

/// Deletes a checkpoint: half-deleted, it must not look like one.
void discard(const std::string& root, const Folder& folder, Sentences& warnings) {
  const std::string doomed = first_free(temporary_name(root, folder.step), [&](const std::string& to) {
    return rename(folder.path.c_str(), to.c_str()) == 0;
  });
  if (doomed.empty()) {
    warnings.push_back(fmt::format("cannot delete {}: {}", folder.path, std::strerror(errno)));
  } else {
    delete_folder(doomed, warnings);
  }
}

/// Removes what dead runs left behind, and finishes a replacement they did not: the caller holds the RunLock. Nothing
/// that goes wrong here is worth a checkpoint.
void recover(const std::string& root, Sentences& warnings) {
  try {
    for (const Folder& folder : list_folders(root)) {
      if (folder.kind == Folder::Kind::temporary) delete_folder(folder.path, warnings);
      if (folder.kind != Folder::Kind::replaced) continue;
      const std::string target = root + "/" + name_of_step(folder.step);
      std::error_code error;
      if (fs::exists(target, error)) {
        sync_folder(root);  // the new one must be on disk before the old one goes
        discard(root, folder, warnings);
      } else {
        rename_folder(folder.path, target);
      }
    }
  } catch (const Error& error) {
    warnings.push_back(error.what());
  }
}

/// From here on the new checkpoint is the one found. A folder cannot be renamed over a full one, so an existing
/// checkpoint of the same step steps aside under a name that discovery knows too: at no moment is there neither.
void put_in_place(const std::string& root, const std::string& temporary, const std::string& target,
                  Sentences& warnings) {
  const std::string aside = first_free(fmt::format("{}.old-{}", target, getpid()),
                                       [&](const std::string& to) { return rename(target.c_str(), to.c_str()) == 0; });
  NSA_CHECK(!aside.empty() || errno == ENOENT, "cannot rename {} out of the way: {}", target, std::strerror(errno));
  try {
    rename_folder(temporary, target);
  } catch (const Error&) {
    if (!aside.empty())
      rename(aside.c_str(), target.c_str());  // should this fail too, discovery finds it under the other name
    throw;
  }
  const std::string unsynced = sync_folder(root);
  if (!unsynced.empty()) warnings.push_back(unsynced);
}

/// Deletes all that is older than the `keep` newest complete ones up to `step`. Newer ones were passed over by
/// discovery: they do not count and stay.
void prune(const std::string& root, std::int64_t step, std::int64_t keep, Sentences& warnings) {
  std::int64_t kept = 0;
  for (const Folder& folder : list_folders(root)) {
    if (folder.kind == Folder::Kind::temporary || folder.step > step) continue;
    if (folder.kind == Folder::Kind::complete && kept < keep) {
      if (complaint(folder.path, folder.step, Depth::sizes, 1).empty()) ++kept;
      continue;
    }
    if (folder.kind == Folder::Kind::replaced && kept == 0) continue;
    discard(root, folder, warnings);
  }
}

}  // namespace

std::vector<std::string> save_checkpoint(const std::string& run_dir, const TrainState& state,
                                         const std::vector<NamedTensor>& weights,
                                         const std::vector<NamedTensor>& optimizer, std::int64_t keep) {
  NSA_CHECK(keep >= 1 && state.step >= 0, "checkpoint: keep = {} must be at least 1, step = {} at least 0", keep,
            state.step);
  const std::string root = run_dir + "/checkpoints", target = root + "/" + name_of_step(state.step);
  Sentences warnings;
  make_folders(root);
  recover(root, warnings);  // before, because what dead runs left behind may be what fills the disk
  const std::string temporary = first_free(temporary_name(root, state.step),
                                           [](const std::string& name) { return mkdir(name.c_str(), 0777) == 0; });
  NSA_CHECK(!temporary.empty(), "cannot make the folder {}: {}", temporary_name(root, state.step),
            std::strerror(errno));
  try {
    write_checkpoint_files(temporary, state, weights, optimizer);
    put_in_place(root, temporary, target, warnings);
  } catch (...) {
    Sentences ignored;  // the first error is the one to tell
    delete_folder(temporary, ignored);
    throw;
  }
  try {
    prune(root, state.step, keep, warnings);
  } catch (const Error& error) {
    warnings.push_back(error.what());
  }
  return warnings;
}

CheckpointFile find_checkpoint(const std::string& run_dir, std::vector<std::string>& warnings, int threads,
                               Depth depth) {
  for (const Folder& folder : list_folders(run_dir + "/checkpoints")) {
    if (folder.kind == Folder::Kind::temporary) continue;
    const std::string reason = complaint(folder.path, folder.step, depth, threads);
    if (reason.empty()) return {folder.path, folder.step};
    warnings.push_back(fmt::format("checkpoint {} is passed over: {}", folder.path, reason));
  }
  return {};
}

void load_tensors(const std::string& file, const std::vector<NamedTensor>& targets, int threads) {
  const SafetensorsReader reader(file);
  std::set<std::string> wanted;
  for (const auto& [name, tensor] : targets) {  // all checks first: a refused file changes nothing
    const Tensor& stored = reader.at(name);
    NSA_CHECK(stored.shape == tensor.shape && stored.dtype == tensor.dtype,
              "{}: tensor \"{}\" is {} {}, expected {} {}: it was saved with another model", file, name,
              name_of(stored.dtype), stored.shape.str(), name_of(tensor.dtype), tensor.shape.str());
    NSA_CHECK(wanted.insert(name).second, "load_tensors: tensor \"{}\" is asked for twice", name);
  }
  for (const auto& [name, tensor] : reader.tensors()) {
    NSA_CHECK(wanted.count(name),
              "{}: tensor \"{}\" has no place in this model ({} tensors in the file, {} expected): it was saved with "
              "another model",
              file, name, reader.tensors().size(), targets.size());
  }
  for (const auto& [name, tensor] : targets) {  // most of the time goes into pages touched for the first time
    const char* from = static_cast<const char*>(reader.at(name).data);
    parallel_ranges(
        threads, static_cast<std::int64_t>(tensor.bytes()), 4 << 20, [&](std::int64_t begin, std::int64_t end, int) {
          upload_part(tensor, static_cast<std::size_t>(begin), from + begin, static_cast<std::size_t>(end - begin));
        });
  }
}

}  // namespace nsa
