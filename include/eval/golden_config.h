// The `config` object in a golden file's header (NSA.md "Golden files") as this project's own structs.
#pragma once

#include <string>

#include "core/safetensors.h"
#include "model/config.h"
#include "train/config.h"

namespace nsa {

struct GoldenConfig {
  std::string kind;           ///< "attention_layer" or "model"
  ModelConfig model;          ///< for a layer only hidden_size, norm_eps, rope_theta and attention are set
  OptimizerConfig optimizer;  ///< "model" only
  double grad_clip = 0;
};

/// Throws naming the file and what is missing, unknown or impossible.
GoldenConfig read_golden_config(const SafetensorsReader& file);

}  // namespace nsa
