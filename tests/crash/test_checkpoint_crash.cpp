// Kills and failing disks while a checkpoint is saved, at every call that changes the disk.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "catch.h"
#include "core/rng.h"
#include "error_of.h"
#include "syscalls.h"
#include "temp_dir.h"
#include "train/checkpoint.h"
#include "train/run_lock.h"

using namespace nsa;
namespace fs = std::filesystem;

namespace {

/// Everything in it says `version`.
struct Content {
  TrainState state;
  std::vector<float> data;
  std::vector<NamedTensor> weights, optimizer;
  Content(std::int64_t step, int version, std::int64_t n = 1000)
      : data(static_cast<std::size_t>(2 * n), static_cast<float>(version)) {
    state.step = step;
    state.tokens = version;
    weights = {{"w", {data.data(), DType::f32, {n}}}};
    optimizer = {{"m", {data.data() + n, DType::f32, {n}}}};
  }
};

/// The warnings.
std::vector<std::string> save(const std::string& run, std::int64_t step, int version, std::int64_t keep = 2,
                              std::int64_t n = 1000) {
  const Content content(step, version, n);
  return save_checkpoint(run, content.state, content.weights, content.optimizer, keep);
}

struct Found {
  std::int64_t step = -1;
  int version = -1;
};

/// What discovery gives, after checking that all of it is of one version.
Found find(const std::string& run, std::int64_t n = 1000) {
  std::vector<std::string> warnings;
  const CheckpointFile c = find_checkpoint(run, warnings);
  for (const auto& w : warnings) FAIL_CHECK(w);
  if (c.path.empty()) return {};
  const TrainState state = load_state(c);
  Content back(0, -1, n);
  load_tensors(model_file(c), back.weights);
  load_tensors(optimizer_file(c), back.optimizer);
  CHECK(state.step == c.step);
  CHECK(
      std::all_of(back.data.begin(), back.data.end(), [&](float v) { return v == static_cast<float>(state.tokens); }));
  return {c.step, static_cast<int>(state.tokens)};
}

std::vector<std::string> names_in(const std::string& run) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(run + "/checkpoints"))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

bool any_temporary(const std::string& run) {
  const auto names = names_in(run);
  return std::any_of(names.begin(), names.end(),
                     [](const std::string& name) { return contains(name, ".tmp-") || contains(name, ".old-"); });
}

/// What is on disk before, and the save that is disturbed.
struct Scene {
  const char* name;
  std::vector<std::int64_t> before;  ///< saved in this order; version = step
  std::int64_t step;
  int version;
};
const std::vector<Scene> kScenes{{"the first one", {}, 10, 10},
                                 {"a new one, an old one goes", {10, 20, 30}, 40, 40},
                                 {"the same step again", {10, 20}, 20, 99}};

void prepare(const Scene& scene, const std::string& run) {
  for (std::int64_t step : scene.before) save(run, step, static_cast<int>(step), 3);
}

/// True if the child was killed by the armed fault, false if it came to its end.
bool killed_at(const std::string& run, const Scene& scene, int call) {
  const pid_t child = fork();
  if (child == 0) {
    fault::arm(fault::Action::kill, call);
    try {
      save(run, scene.step, scene.version);
    } catch (...) {
      _exit(7);
    }
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE((WIFSIGNALED(status) || WEXITSTATUS(status) == 0));
  return WIFSIGNALED(status);
}

}  // namespace

TEST_CASE(
    "kill before every call that changes the disk: a complete checkpoint is found, never older than the last one "
    "saved") {
  for (const Scene& scene : kScenes) {
    const std::int64_t last = scene.before.empty() ? -1 : scene.before.back();
    bool killed = true, new_seen = false;
    int call = 0;
    for (; killed; ++call) {
      REQUIRE(call < 200);
      TempDir run;
      prepare(scene, run.path());
      killed = killed_at(run.path(), scene, call);
      INFO(scene.name << ", killed at call " << call);
      const Found found = find(run.path());
      const bool is_new = found.step == scene.step && found.version == scene.version;
      CHECK((is_new || (found.step == last && found.version == static_cast<int>(last))));
      CHECK((is_new || !new_seen));  // once in place it stays
      new_seen = is_new;
      save(run.path(), 50, 50);  // the next run cleans up
      CHECK(find(run.path()).step == 50);
      CHECK_FALSE(any_temporary(run.path()));
      CHECK(names_in(run.path()).size() <= 2);
    }
    CHECK(new_seen);
    CHECK(call > 10);
  }
}

TEST_CASE(
    "every call failing, because the disk is full, broken, read-only or not ours: one sentence, nothing half-written, "
    "the older ones untouched") {
  for (const Scene& scene : kScenes) {
    for (bool full : {true, false}) {
      const std::int64_t last = scene.before.empty() ? -1 : scene.before.back();
      bool happened = true;
      for (int call = 0; happened; ++call) {
        REQUIRE(call < 200);
        TempDir run;
        prepare(scene, run.path());
        const int errno_value = full ? ENOSPC : call % 3 == 0 ? EIO : call % 3 == 1 ? EROFS : EACCES;
        fault::arm(fault::Action::error, call, errno_value);
        std::vector<std::string> warnings;
        const std::string error = error_of([&] { warnings = save(run.path(), scene.step, scene.version); });
        happened = fault::happened();
        const std::vector<std::string> trace = fault::trace();
        fault::disarm();
        INFO(scene.name << ", call " << call
                        << " failed: " << (happened ? trace[static_cast<std::size_t>(call)] : "none") << ": " << error);
        const std::string said = error.empty() && !warnings.empty() ? warnings.front() : error;
        CHECK(said.empty() == !happened);
        CHECK(warnings.size() <= 1);
        if (happened) CHECK(contains(said, std::strerror(errno_value)));
        if (happened) CHECK(contains(said, run.path()));
        const Found found = find(run.path());
        if (error.empty()) {  // saved is saved
          CHECK(found.version == scene.version);
        } else {
          CHECK((found.step == last || found.version == scene.version));
        }
        save(run.path(), 50, 50);
        CHECK(find(run.path()).step == 50);
        CHECK_FALSE(any_temporary(run.path()));
      }
    }
  }
}

TEST_CASE(
    "the order of a save: files and folders are on disk before the rename, the rename before anything is deleted") {
  TempDir run;
  for (std::int64_t step : {10, 20}) save(run.path(), step, 1);
  fault::arm(fault::Action::none, -1);
  save(run.path(), 30, 1);
  const std::vector<std::string> trace = fault::trace();
  fault::disarm();
  const std::string root = run.path() + "/checkpoints";
  const auto first = [&](const std::string& begin, std::size_t from = 0) {
    for (std::size_t i = from; i < trace.size(); ++i) {
      if (trace[i].compare(0, begin.size(), begin) == 0) return i;
    }
    FAIL("no " << begin);
    return trace.size();
  };
  const std::string folder = root + "/step_00000030.tmp-" + std::to_string(getpid());
  const std::size_t renamed = first("rename " + folder + " " + root + "/step_00000030");
  const std::size_t manifest = first("create " + folder + "/manifest.json");
  for (const char* file : {"model.safetensors", "optimizer-0000-of-0001.safetensors", "state.json", "manifest.json"}) {
    const std::string path = folder + "/" + file;
    const std::size_t synced = first("fsync " + path);
    for (std::size_t i = synced; i < trace.size(); ++i) CHECK(trace[i] != "write " + path);
    CHECK(synced < renamed);
    CHECK((synced < manifest || std::string(file) == "manifest.json"));
  }
  const std::size_t folder_synced = first("fsync " + folder, first("fsync " + folder + "/manifest.json") + 1);
  CHECK(trace[folder_synced] == "fsync " + folder);
  CHECK(folder_synced < renamed);
  const std::size_t parent_synced = first("fsync " + root, renamed);
  CHECK(trace[parent_synced] == "fsync " + root);
  CHECK(parent_synced < first("rename " + root + "/step_00000010"));
  CHECK(parent_synced < first("unlink"));
}

TEST_CASE("a file that may not grow further (the disk's quota): the older ones stay, the next save succeeds") {
  TempDir run;
  save(run.path(), 10, 10);
  rlimit before{};
  REQUIRE(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 1500000;  // a file of 4 MB stops in its middle
  REQUIRE(setrlimit(RLIMIT_FSIZE, &small) == 0);
  const std::string error = error_of([&] { save(run.path(), 20, 20, 2, 1000000); });
  REQUIRE(setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
  CHECK(contains(error, "model.safetensors: File too large"));
  CHECK(names_in(run.path()) == std::vector<std::string>{"step_00000010"});
  CHECK(find(run.path()).version == 10);
  save(run.path(), 20, 20);
  CHECK(find(run.path()).version == 20);
}

TEST_CASE("what cannot be deleted stops nothing: every later checkpoint is saved, the others are deleted, it is said") {
  TempDir run;
  const std::string root = run.path() + "/checkpoints";
  save(run.path(), 10, 10);
  fs::create_directories(root + "/step_00000005.tmp-99");
  for (const char* file :
       {"/step_00000005.tmp-99/.nfs0001", "/step_00000005.tmp-99/model.safetensors", "/step_00000010/.nfs0002"})
    std::ofstream(root + file) << "open elsewhere";
  fault::arm(fault::Action::none, -1);
  fault::refuse(".nfs", EBUSY);
  for (int step : {20, 30, 40, 50}) {
    std::vector<std::string> warnings = save(run.path(), step, step);
    std::sort(warnings.begin(), warnings.end());
    REQUIRE(warnings.size() == (step == 20 ? 1 : 2));
    CHECK(contains(warnings[0], "cannot delete " + root + "/step_00000005.tmp-99: " + std::strerror(EBUSY)));
    if (step > 20) CHECK(contains(warnings[1], "cannot delete " + root + "/step_00000010.tmp-"));
    CHECK(find(run.path()).version == step);
  }
  fault::disarm();
  CHECK_FALSE(fs::exists(root + "/step_00000005.tmp-99/model.safetensors"));
  CHECK(fs::exists(root + "/step_00000005.tmp-99/.nfs0001"));
  CHECK_FALSE(fs::exists(root + "/step_00000020"));
  CHECK(save(run.path(), 60, 60).empty());  // it can be deleted now
  CHECK(names_in(run.path()) == std::vector<std::string>{"step_00000050", "step_00000060"});
}

TEST_CASE("a file with the name of one of our folders is in nobody's way") {
  TempDir run;
  fs::create_directories(run.path() + "/checkpoints");
  for (const char* name : {"/step_00000005.tmp-99", "/step_00000010"})
    std::ofstream(run.path() + "/checkpoints" + name) << "not a folder";
  CHECK(save(run.path(), 10, 10).empty());
  CHECK(names_in(run.path()) == std::vector<std::string>{"step_00000010"});
  CHECK(find(run.path()).version == 10);
}

TEST_CASE("old checkpoints that cannot be moved or deleted at all stay; new ones are saved") {
  TempDir run;
  for (std::int64_t step : {10, 20}) save(run.path(), step, 1);
  fault::arm(fault::Action::none, -1);
  fault::refuse("rename " + run.path() + "/checkpoints/step_00000010", EACCES);
  for (int step : {30, 40}) {
    const std::vector<std::string> warnings = save(run.path(), step, step);
    REQUIRE(warnings.size() == 1);
    CHECK(contains(warnings[0], "cannot delete " + run.path() + "/checkpoints/step_00000010: "));
  }
  fault::disarm();
  CHECK(names_in(run.path()) == std::vector<std::string>{"step_00000010", "step_00000030", "step_00000040"});
}

TEST_CASE("the temporary name of this process is taken by something that stays: another name is used") {
  TempDir run;
  const std::string taken = run.path() + "/checkpoints/step_00000010.tmp-" + std::to_string(getpid());
  fs::create_directories(taken);
  std::ofstream(taken + "/.nfs0001") << "open elsewhere";
  fault::arm(fault::Action::none, -1);
  fault::refuse(".nfs", EBUSY);
  CHECK(save(run.path(), 10, 10).size() == 1);
  fault::disarm();
  CHECK(find(run.path()).version == 10);
  CHECK_FALSE(fs::exists(run.path() + "/checkpoints/step_00000010/.nfs0001"));
}

TEST_CASE("a file system that does not sync folders: saved, with a warning") {
  for (int code : {ENOSYS, EOPNOTSUPP, EBADF, EINVAL}) {
    TempDir run;
    save(run.path(), 10, 10);
    fault::arm(fault::Action::none, -1);
    fault::refuse("fsync " + run.path() + "/checkpoints", code);
    const std::vector<std::string> warnings = save(run.path(), 20, 20);
    fault::disarm();
    REQUIRE(warnings.size() == 1);
    CHECK(contains(warnings[0], run.path() + "/checkpoints cannot be synced"));
    CHECK(contains(warnings[0], std::strerror(code)));
    CHECK(find(run.path()).version == 20);
  }
}

TEST_CASE("a file system without locks: a warning, not a refusal; a lock that failed is an error") {
  TempDir run;
  for (int code : {ENOSYS, EOPNOTSUPP, EBADF, EINVAL, ENOLCK}) {
    fault::arm(fault::Action::none, -1);
    fault::refuse("flock ", code);
    const RunLock lock(run.path());
    fault::disarm();
    CHECK(contains(lock.warning(), run.path() + "/lock cannot be locked (" + std::strerror(code)));
  }
  fault::arm(fault::Action::none, -1);
  fault::refuse("flock ", EIO);
  CHECK(contains(error_of([&] { RunLock lock(run.path()); }), std::strerror(EIO)));
  fault::disarm();
  CHECK(RunLock(run.path()).warning().empty());
}

TEST_CASE("kill -9 at random moments of a run that saves all the time") {
  constexpr std::int64_t kElements = 20000;
  TempDir run;
  std::int64_t step = 0;
  const Rng rng(3, "kill");
  for (std::uint64_t round = 0; round < 25; ++round) {
    int said[2];
    REQUIRE(pipe(said) == 0);
    const pid_t child = fork();
    if (child == 0) {
      try {
        for (std::int64_t s = step + 1;; ++s) {
          save(run.path(), s, static_cast<int>(s), 2, kElements);
          if (write(said[1], &s, sizeof s) != sizeof s) _exit(8);
        }
      } catch (...) {
        _exit(7);
      }
    }
    close(said[1]);
    usleep(static_cast<useconds_t>(2000 + 40000 * rng.uniform(round)));
    kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    REQUIRE(WIFSIGNALED(status));
    std::int64_t reported = step, s = 0;
    while (read(said[0], &s, sizeof s) == sizeof s) reported = s;
    close(said[0]);
    const Found found = find(run.path(), kElements);
    CHECK(found.step >= std::max<std::int64_t>(reported, step));
    CHECK(found.step <= reported + 1);
    if (found.step > 0) CHECK(found.version == static_cast<int>(found.step));
    step = std::max<std::int64_t>(found.step, 0);
  }
  CHECK(step > 0);
}
