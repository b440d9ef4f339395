// What the tests of the program share: a corpus and two configs that train in well under a second, and a way to hit a
// running process.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "core/file.h"
#include "data/tools.h"
#include "device_under_test.h"
#include "places.h"

using namespace nsa;

// Byte shards of a small text and a config that trains on them in well under a second.
struct Workplace {
  TempDir dir;
  std::string config = dir / "tiny.json", full = dir / "tiny_full.json";  // NSA, and the same model with full attention

  explicit Workplace(std::int64_t steps = 40) {
    write_text(dir / "text.txt", training_text());
    REQUIRE(run_tool("tokenize", "--tokenizer bytes --val-fraction 0 --out " + dir / "tiny" + " " + dir / "text.txt")
                .status == 0);
    write_config(config, steps, "nsa", 16);
    write_config(full, steps, "full", 0);
  }
  void write_config(const std::string& path, std::int64_t steps, const char* type, int window) const {
    write_text(path, fmt::format(R"({{
      // comments are allowed
      "model": {{"vocab_size": 257, "hidden_size": 32, "num_layers": 1, "intermediate_size": 48,
                 "attention": {{"type": "{2}", "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "compress_block": 8,
                               "compress_stride": 4, "select_block": 8, "select_count": 4, "window": {3}}}}},
      "data": {{"train": ["{0}/tiny_train_*.bin"], "val": ["{0}/tiny_train_*.bin"], "tokenizer": "bytes",
                "sequence_length": 64}},
      "train": {{"steps": {1}, "batch_tokens": 256, "micro_batch": 2, "optimizer": {{"lr": 0.003}}}},
      "eval": {{"every": 20, "batches": 2, "sample_every": 20, "sample_tokens": 8}},
      "checkpoint": {{"every": 3}},
      "log": {{"dir": "{0}/runs"}},
      "device": "{4}",
      "threads": 1
    }})",
                                 dir.path(), steps, type, window, test::device_under_test()));
  }
  Ran train(const std::string& more = "") const { return run_tool("nsa", "train " + config + " " + more); }
  std::string weights(const std::string& name, std::int64_t steps = 40) const {
    return read_file(fmt::format("{}/runs/{}/checkpoints/step_{:08}/model.safetensors", dir.path(), name, steps));
  }
};

/// Starts `nsa ARGUMENTS`, sends `signal` after `ms`, returns the exit code (128 + signal when killed).
inline int run_and_signal(const std::vector<std::string>& arguments, int signal, int ms) {
  const std::string program = std::string(kBinaryDir) + "/nsa";
  std::vector<const char*> argv{"nsa"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    const int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    dup2(null, 2);
    execv(program.c_str(), const_cast<char* const*>(argv.data()));
    _exit(127);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(ms));
  kill(pid, signal);
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
