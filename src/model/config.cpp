#include "model/config.h"

namespace nsa {

namespace {

void check_divides(const char* small_name, std::int64_t small, const char* large_name, std::int64_t large) {
  if (large % small != 0)
    fail_usage("model.attention.{} = {} must be a multiple of model.attention.{} = {}", large_name, large, small_name,
               small);
}

void check_nsa(const AttentionConfig& a) {
  check_divides("compress_stride", a.compress_stride, "compress_block", a.compress_block);
  check_divides("compress_stride", a.compress_stride, "select_block", a.select_block);
  if (a.select_block < a.compress_block) {
    fail_usage("model.attention.select_block = {} must be at least model.attention.compress_block = {}", a.select_block,
               a.compress_block);
  }
  if (a.select_count < a.select_init + a.select_local) {
    fail_usage(
        "model.attention.select_count = {} must be at least select_init + select_local = {} + {}: the forced blocks "
        "count inside it",
        a.select_count, a.select_init, a.select_local);
  }
}

}  // namespace

void check(const ModelConfig& config) {
  check_ranges(fields_of(const_cast<ModelConfig&>(config)), "model.");  // the list can also write; here it is only read
  const AttentionConfig& a = config.attention;
  check_divides("num_kv_heads", a.num_kv_heads, "num_heads", a.num_heads);
  if (a.head_dim % 2 != 0) fail_usage("model.attention.head_dim = {} must be even: RoPE rotates pairs", a.head_dim);
  if (config.norm_eps == 0) fail_usage("model.norm_eps = 0 would divide by zero on a row of zeros; 1e-5 is usual");
  if (a.type == AttentionType::nsa) check_nsa(a);
}

}  // namespace nsa
