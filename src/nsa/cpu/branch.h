// Sizes shared by the branch kernels (compressed, scores, selected). A tile's rows are queries x the G heads of one kv
// head, so that every key block that is loaded serves all of them. Dkp, Dvp, width: Dk, Dv, block rounded up to whole
// vectors; the padding holds zeros.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/device.h"
#include "core/parallel.h"
#include "core/tensor.h"
#include "nsa/nsa.h"

namespace nsa::cpu {

struct BranchDims {
  static constexpr std::int64_t kPad = 16;  // kTileN
  static constexpr std::int64_t kTileRows =
      96;  // 16 register blocks of 6 rows; q, d_o and one key block then fit the second cache level

  std::int64_t B, T, H, Hkv, G, Dk, Dv, Dkp, Dvp, ldk, ldv;
  std::int64_t S;        ///< keys in a sequence: T or Tc
  std::int64_t block;    ///< keys in a block
  std::int64_t lds;      ///< row length of a tile of logits
  std::int64_t blocks;   ///< blocks in a sequence, the last may be short
  std::int64_t queries;  ///< queries in a tile
  std::int64_t rows;     ///< queries * G

  /// q (B,T,H,Dk), k (B,S,Hkv,Dk); Dv 0 when there are no values
  BranchDims(In q, In k, std::int64_t Dv_, std::int64_t block_)
      : B(q.dim(0)),
        T(q.dim(1)),
        H(q.dim(2)),
        Hkv(k.dim(2)),
        G(H / Hkv),
        Dk(q.dim(3)),
        Dv(Dv_),
        Dkp(padded(Dk)),
        Dvp(padded(Dv)),
        ldk(Dkp | kPad),
        ldv(Dvp | kPad),
        S(k.dim(1)),
        block(block_),
        lds(padded(block) | kPad),
        blocks((S + block - 1) / block),
        queries(std::max<std::int64_t>(1, kTileRows / G)),
        rows(queries * G) {}

  static std::int64_t padded(std::int64_t n) { return (n + kPad - 1) / kPad * kPad; }
  std::int64_t groups() const { return B * Hkv; }
  std::int64_t tiles() const { return (T + queries - 1) / queries; }
  std::int64_t keys_in(std::int64_t j) const { return std::min(block, S - j * block); }
  /// First row of query t of group bh (= b * Hkv + kv head) in a (B,T,H) array; its G rows are neighbours.
  std::int64_t row(std::int64_t bh, std::int64_t t) const { return (bh / Hkv * T + t) * H + bh % Hkv * G; }
  /// Row of key s of group bh in a (B,S,Hkv) array; the next key is Hkv rows further.
  std::int64_t key_row(std::int64_t bh, std::int64_t s) const { return (bh / Hkv * S + s) * Hkv + bh % Hkv; }
};

/// Where an output is summed up over several passes: itself, or float scratch when it cannot hold a sum.
inline Tensor sum_of(Device& dev, In output) { return output.dtype == DType::f32 ? output : dev.scratch(output.shape); }

/// Which copies of keys and values a pass multiplies with. The transposed ones are right operands of rows x keys
/// products.
struct PackedForms {
  bool kt = false, k = false, vt = false, v = false;
};

/// Keys and values re-ordered block by block, those forms that are asked for, for every group and block; filled by
/// pack_keys (branch-inl.h). `pairs`: in bf16, pairs of neighbouring elements (kt, vt) or keys (k, v), each in the
/// place of a float (tile_bf16-inl.h).
struct PackedKeys {
  PackedForms forms;
  float* data = nullptr;
  /// offsets inside a block: kt (Dk,lds), k (block,ldk), vt (Dv,lds), v (block,ldv), half as many rows of pairs; floats
  /// of a block
  std::int64_t kt = 0, k = 0, vt = 0, v = 0, size = 0;

  PackedKeys(Device& dev, const BranchDims& dims, PackedForms wanted, bool pairs) : forms(wanted) {
    const std::int64_t elements_k = pairs ? dims.Dkp / 2 : dims.Dk, elements_v = pairs ? dims.Dvp / 2 : dims.Dv,
                       keys = pairs ? (dims.block + 1) / 2 : dims.block;
    const auto place = [&](bool wanted_form, std::int64_t n) {
      const std::int64_t at = size;
      if (wanted_form) size += n;
      return at;
    };
    kt = place(forms.kt, elements_k * dims.lds), k = place(forms.k, keys * dims.ldk),
    vt = place(forms.vt, elements_v * dims.lds), v = place(forms.v, keys * dims.ldv);
    data = dev.scratch({dims.groups() * dims.blocks, size}).raw<float>();
  }
  float* at(const BranchDims& dims, std::int64_t bh, std::int64_t j) const {
    return data + (bh * dims.blocks + j) * size;
  }
};

}  // namespace nsa::cpu
