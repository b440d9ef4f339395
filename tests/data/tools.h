// Runs the built tools as a user does, and makes the small tokenizer the tests share.
#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

#include "catch.h"
#include "error_of.h"
#include "temp_dir.h"
#include "places.h"

/// Path of a file in the folder.
inline std::string operator/(const TempDir& folder, const std::string& name) { return folder.path() + "/" + name; }

struct Ran {
  int status = -1;     // exit code; 128 + signal when killed
  std::string output;  // stdout and stderr together
};

/// The sanitizer reserves terabytes of addresses: `ulimit -v` cannot be used with it.
#ifdef __SANITIZE_ADDRESS__
inline constexpr bool kCanLimitMemory = false;
#else
inline constexpr bool kCanLimitMemory = true;
#endif

/// `arguments` go through the shell, after `before`.
inline Ran run_tool(const std::string& tool, const std::string& arguments, const std::string& before = "") {
  const std::string command = before + std::string(kBinaryDir) + "/" + tool + " " + arguments + " 2>&1 </dev/null";
  FILE* pipe = popen(command.c_str(), "r");
  if (!pipe) throw std::runtime_error("cannot run " + command);
  Ran ran;
  char buffer[4096];
  for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) ran.output.append(buffer, n);
  const int status = pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return ran;
}

inline void write_text(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary);
  file << content;
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

/// Words, code, numbers, other scripts, and everything that a tokenizer could take for its own marks.
inline std::string training_text() {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text += "The quick brown fox jumps over the lazy dog " + std::to_string(i * 7919) + " times.\n";
    text += "\tfor (int i = 0; i < n; ++i) {\n\t\tx[i] += 2;  // comment\n    }\r\n\r\n";
    text +=
        "<s> <unk> <eot> </s> <0x0A> <0x41> gr\xC3\xBC\xC3\x9F"
        "e na\xC3\xAFve \xE6\x97\xA5\xE6\x9C\xAC\xE8\xAA\x9E \xF0\x9F\x99\x82\n\n";
  }
  return text;
}

/// Path of a model of 400 pieces trained by the tool, once per process.
inline const std::string& small_model() {
  static const TempDir folder;
  static const std::string path = [] {
    const std::string model = folder / "small.model";
    write_text(folder / "text.txt", training_text());
    const Ran ran = run_tool("train_tokenizer", (folder / "text.txt") + " --vocab-size 400 --threads 1 --out " + model);
    if (ran.status != 0) throw std::runtime_error(ran.output);
    return model;
  }();
  return path;
}
