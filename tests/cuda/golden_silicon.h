// What an H100 did (tests/golden/silicon/h100.safetensors, docs/golden.md): tensors of any element type, as they were
// written.
#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "core/check.h"
#include "places.h"

namespace nsa::test {

class Silicon {
 public:
  Silicon() {
    std::ifstream in(std::string(kSourceDir) + "/tests/golden/silicon/h100.safetensors", std::ios::binary);
    std::uint64_t header = 0;
    in.read(reinterpret_cast<char*>(&header), sizeof header);
    NSA_CHECK(in && header < 1u << 24, "tests/golden/silicon/h100.safetensors cannot be read");
    std::string text(header, ' ');
    in.read(text.data(), static_cast<std::streamsize>(header));
    const nlohmann::json entries = nlohmann::json::parse(text);
    for (const auto& [name, entry] : entries.items())
      if (name != "__metadata__") places_[name] = entry["data_offsets"].get<std::pair<std::size_t, std::size_t>>();
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
  }

  bool has(const std::string& name) const { return places_.count(name) > 0; }
  template <class T>
  std::vector<T> get(const std::string& name) const {
    NSA_CHECK(has(name), "h100.safetensors has no {}", name);
    const auto [begin, end] = places_.at(name);
    std::vector<T> v((end - begin) / sizeof(T));
    std::memcpy(v.data(), bytes_.data() + begin, v.size() * sizeof(T));
    return v;
  }
  /// Names of the recorded cases "prefix...": what stands before ".suffix".
  std::vector<std::string> cases(const std::string& prefix, const std::string& suffix) const {
    std::vector<std::string> found;
    for (const auto& [name, place] : places_) {
      if (name.rfind(prefix, 0) == 0 && name.size() > suffix.size() && name.ends_with("." + suffix))
        found.push_back(name.substr(0, name.size() - suffix.size() - 1));
    }
    return found;
  }

 private:
  std::map<std::string, std::pair<std::size_t, std::size_t>> places_;
  std::string bytes_;
};

inline const Silicon& silicon() {
  static const Silicon file;
  return file;
}

}  // namespace nsa::test
