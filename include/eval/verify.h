// Golden files: does this program compute what an independent float64 implementation computed? (NSA.md "Golden files")
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "train/config.h"

namespace nsa {

/// Where and in what type of numbers to compute.
struct VerifyOptions {
  DeviceType device = DeviceType::cpu;
  int threads = 1;
  DType type = DType::f32;
};

/// One tensor compared with the file.
struct VerifyRow {
  std::string name;
  double error = 0;  ///< relative RMS error |got - want| / |want|; `selected`: share of differing slots that are no tie
  double tolerance = 0;
  std::string worst;  ///< "[0, 3, 17]: got 0.1234, expected 0.1235"
  std::string note;
  bool ok() const { return error <= tolerance; }
};

struct VerifyReport {
  std::string kind;  ///< "attention_layer" or "model"
  std::vector<VerifyRow> rows;
  bool ok() const;
};

/// Runs the layer or model a golden file describes and compares every tensor it holds. Sizes are
/// whatever the file says.
VerifyReport verify(const std::string& path, const VerifyOptions& options);

}  // namespace nsa
