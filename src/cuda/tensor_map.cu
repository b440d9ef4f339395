// Tensor maps by the driver's own encoder, found through the run-time: the binary does not link libcuda.
#include "cuda/tma.cuh"

namespace nsa::cuda {

#if defined(__CUDACC__)

namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

Encode encoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
#if CUDART_VERSION >= 12050
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
        "cuTensorMapEncodeTiled");
#else
  check(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function, cudaEnableDefault, &found),
        "cuTensorMapEncodeTiled");
#endif
  NSA_CHECK(found == cudaDriverEntryPointSuccess, "this driver has no cuTensorMapEncodeTiled: it is too old");
  return reinterpret_cast<Encode>(function);
}

}  // namespace

TensorMap make_tensor_map(const TensorShape& s) {
  if (const char* why = why_refused(s)) fail("tensor map: {}", why);
  static const Encode encode = encoder();
  cuuint64_t dims[5], pitch[4];
  cuuint32_t box[5], steps[5];
  for (int i = 0; i < s.rank; ++i) {
    dims[i] = s.dims[i], box[i] = s.box[i], steps[i] = 1;
    if (i + 1 < s.rank) pitch[i] = s.pitch[i];
  }
  const CUtensorMapSwizzle swizzle = s.swizzle == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                     : s.swizzle == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                     : s.swizzle == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
                                                       : CU_TENSOR_MAP_SWIZZLE_NONE;
  TensorMap map;
  const CUresult result =
      encode(&map, s.type == TensorType::f32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
             static_cast<cuuint32_t>(s.rank), s.base, dims, pitch, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             s.nan_fill ? CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA : CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  NSA_CHECK(result == CUDA_SUCCESS, "tensor map: the driver refuses it with error {}", static_cast<int>(result));
  return map;
}

#endif

}  // namespace nsa::cuda
