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

/// How a tensor starts: a constant, or N(0, std). `residual` is for the two matrices that write into the residual
/// stream: their std is divided by sqrt(2 L). `centred` rows sum to 0, by the rule of fan-in: what all inputs of a row
/// have in common does not pass.
enum class Init { normal, residual, centred, ones, zeros };

struct Param {
  std::string name;  ///< Hugging Face name (NSA.md "Names of parameters")
  Shape shape;
  Init init = Init::normal;
  double gain = 1;  ///< by the rule of fan-in, std = gain / sqrt(last dimension)
  Tensor w;       ///< what the ops read, in the type of the computation: f32, the master itself; bf16, its rounded copy
  Tensor master;  ///< f32: what the optimizer moves and a checkpoint holds
  Tensor grad, m, v;  ///< f32; absent in a model made for inference. m, v: AdamW's moments
  /// Decoupled weight decay acts on matrices only.
  bool decay() const { return shape.rank() >= 2; }
};

/// Parameters in the order they were declared. Masters, copies, gradients and moments are slabs, each contiguous in
/// that order; tensors start at multiples of kAlign bytes, and what lies between them is and stays 0.
class Params {
 public:
  /// The record stays where it is for the life of Params.
  Param& declare(const std::string& name, const Shape& shape, Init init = Init::normal, double gain = 1);

  enum class With { weights, training };
  /// Takes the slabs from dev.params, for ops that compute in `type`. Called once.
  void allocate(Device& dev, With with, DType type);
  /// Initial values: a pure function of (seed, name, element) but for their std, so a tensor two models share starts
  /// equal in both. init_std > 0 is the std of every matrix; 0 is the rule of fan-in, under which a product keeps the
  /// rms of its input at every width (docs/initial_values.md). Moments become 0.
  void initialise(Device& dev, std::uint64_t seed, double init_std, std::int64_t num_layers);
  /// The copies follow the masters, after those were loaded. (AdamW writes both.)
  void refresh_copies(Device& dev) const;

  std::deque<Param>& list() { return list_; }
  const std::deque<Param>& list() const { return list_; }
  std::int64_t count() const;                ///< number of elements
  std::vector<NamedTensor> weights() const;  ///< the masters, for model.safetensors
  std::vector<NamedTensor> moments() const;  ///< "NAME.m", "NAME.v" for optimizer-*.safetensors

  /// The slabs (n), and which parts of them decay (op::adamw). copy is absent when ops compute in f32.
  struct Slabs {
    Tensor master, copy, grad, m, v;
    Tensor ranges;  ///< (R,2) i32
  };
  const Slabs& slabs() const { return slabs_; }

 private:
  void carve(const Tensor& slab, Tensor Param::*slot);
  void fill_padding(Device& dev, const Tensor& slab) const;
  void take_ranges(Device& dev);

  std::deque<Param> list_;
  Slabs slabs_;
};

}  // namespace nsa
