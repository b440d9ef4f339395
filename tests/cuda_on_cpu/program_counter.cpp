#include "cuda_on_cpu/program_counter.h"

#include <dlfcn.h>
#include <elf.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

namespace cuda_on_cpu {

namespace {

const char* program_begin() {
  static const char* const begin = [] {
    Dl_info info{};
    dladdr(reinterpret_cast<const void*>(&program_counter_number), &info);
    return static_cast<const char*>(info.dli_fbase);
  }();
  return begin;
}

}  // namespace

std::uint32_t program_counter_number(const void* pc) {
  return static_cast<std::uint32_t>(static_cast<const char*>(pc) - program_begin()) & 0x7fffffffu;
}

std::string describe_program_counter(std::uint32_t number) {
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(program_begin());
  const std::uintptr_t base = header->e_type == ET_DYN ? 0 : reinterpret_cast<std::uintptr_t>(program_begin());
  // A return address: the call is before it. With -i: the lines it was inlined into, outermost last.
  const std::string command =
      fmt::format("addr2line -i -s -e /proc/{}/exe {:#x} 2>/dev/null", getpid(), base + number - 1);
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  std::string places;
  char line[256];
  while (pipe && fgets(line, sizeof line, pipe.get()) && line[0] != '?') {
    const std::string text = line;
    places += (places.empty() ? "" : " < ") + text.substr(0, text.find_first_of(" \n"));
  }
  return places.empty() ? fmt::format("program +{:#x}", number) : places;
}

}  // namespace cuda_on_cpu
