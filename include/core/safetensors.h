// The safetensors file format: 8-byte little-endian header length, JSON header {name: {dtype, shape, data_offsets},
// "__metadata__": {str: str}}, bytes. https://github.com/huggingface/safetensors (format described in its README).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace nsa {

/// A file opened for reading: mapped, so tensors are views into it and live as long as this object. Every offset and
/// shape is checked when opening: overlapping, out-of-file, misaligned or wrong-sized entries are one clear sentence
/// with the path and the tensor's name. F32, BF16 and I32 are read; a scalar has the shape (1). The tensors are
/// read-only memory: writing to one is a segmentation fault.
class SafetensorsReader {
 public:
  explicit SafetensorsReader(const std::string& path);
  ~SafetensorsReader();
  SafetensorsReader(const SafetensorsReader&) = delete;
  SafetensorsReader& operator=(const SafetensorsReader&) = delete;

  const std::string& path() const { return path_; }
  const std::map<std::string, Tensor>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool has(const std::string& name) const { return tensors_.count(name) > 0; }
  /// Throws naming the file and the closest existing name when it is absent.
  const Tensor& at(const std::string& name) const;

 private:
  void open_tensors();
  std::string path_;
  void* map_ = nullptr;
  std::size_t size_ = 0;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

struct NamedTensor {
  std::string name;
  Tensor tensor;
};
/// Streams a file without a copy of the model in memory: header, padded so that the data starts at a multiple of 64,
/// then the tensors' bytes in the given order (4-byte types before 2-byte ones; no gaps, as the format demands).
/// `on_bytes` sees everything written, in order (for checksums). fsyncs before it returns. Throws with the path on any
/// write error (disk full, ...); the half-written file is removed.
void write_safetensors(const std::string& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata,
                       const std::function<void(const void*, std::size_t)>& on_bytes = {});

}  // namespace nsa
