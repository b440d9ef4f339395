// A parameter is a record; whole-model work (init, norm, all-reduce, decay, checkpoint, count) is a loop over records
// or one pass over a slab (DESIGN law 6).
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/safetensors.h"
#include "core/tensor.h"

namespace nsa {

/// How a tensor starts. `normal`: N(0, init_std); `residual`: N(0, init_std / sqrt(2 L)), for the two matrices that
/// write into the residual stream.
enum class Init { normal, residual, ones, zeros };

struct Param {
  std::string name;  ///< Hugging Face name (NSA.md "Names of parameters")
  Shape shape;
  Init init = Init::normal;
  Tensor w, grad;  ///< grad, m, v are absent in a model made for inference
  Tensor m, v;     ///< AdamW's moments
  /// Decoupled weight decay acts on matrices only.
  bool decay() const { return shape.rank() >= 2; }
};

/// Parameters in the order they were declared. Weights, gradients and moments are four slabs, each contiguous in that
/// order.
class Params {
 public:
  /// The record stays where it is for the life of Params.
  Param& declare(const std::string& name, const Shape& shape, Init init = Init::normal);

  enum class With { weights, training };
  /// Takes the slabs from dev.params. Called once.
  void allocate(Device& dev, With with);
  /// Initial values: a pure function of (seed, name, element), so a tensor two models share starts equal in both.
  void initialise(std::uint64_t seed, double init_std, std::int64_t num_layers);

  std::deque<Param>& list() { return list_; }
  const std::deque<Param>& list() const { return list_; }
  std::int64_t count() const;                ///< number of elements
  Tensor grads() const { return grads_; }    ///< the whole gradient slab (padding between tensors is and stays 0)
  std::vector<NamedTensor> weights() const;  ///< for model.safetensors
  std::vector<NamedTensor> moments() const;  ///< "NAME.m", "NAME.v" for optimizer-*.safetensors

 private:
  std::deque<Param> list_;
  Tensor grads_;
};

}  // namespace nsa
