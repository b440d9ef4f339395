// wgmma: D (64 x N, f32, in the registers of a warpgroup) = [D +] A (64 x 16) B (16 x N), bf16, done by a tensor core
// on its own. A and B lie in shared memory as their descriptors say (layout.cuh), or A in registers. sm_90a. Order:
// wgmma_fence, products, wgmma_commit, wgmma_wait. Traps: wgmma_wait names no registers, so keep_registers() after it,
// or the compiler moves uses of D above the wait; a wait speaks for its own warp, not for the other three.
#pragma once

#include "cuda/layout.cuh"
#include "cuda/shared.cuh"

#if !defined(__CUDACC__)
#include "cuda_on_cpu/wgmma.h"
#else

namespace nsa::cuda {

/// Before the first product, and after registers of one were written.
NSA_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
NSA_DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// All but the N newest groups are done.
template <int N>
NSA_DEVICE void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/// Ties registers to this point of the program.
template <int M>
NSA_DEVICE void keep_registers(float (&r)[M]) {
#pragma unroll
  for (int i = 0; i < M; ++i) asm volatile("" : "+f"(r[i])::"memory");
}
template <int M>
NSA_DEVICE void keep_registers(std::uint32_t (&r)[M]) {
#pragma unroll
  for (int i = 0; i < M; ++i) asm volatile("" : "+r"(r[i])::"memory");
}

/// Registers of a thread from here on, by all warps of a warpgroup; an increase waits until others have given them
/// back. Trap: the sum over the block must not pass 65536, and a kernel that spilled has fewer than it believes: it
/// hangs.
template <int N>
NSA_DEVICE void registers_decrease() {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256);
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N>
NSA_DEVICE void registers_increase() {
  static_assert(N % 8 == 0 && N >= 24 && N <= 256);
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

// The operand lists, eight registers at a time: NSA_L32 is "%0,...,%31", NSA_O32 the operands d[0] .. d[31].
#define NSA_D(i) "+f"(d[i])
#define NSA_D8(i) \
  NSA_D(i), NSA_D(i + 1), NSA_D(i + 2), NSA_D(i + 3), NSA_D(i + 4), NSA_D(i + 5), NSA_D(i + 6), NSA_D(i + 7)
#define NSA_L4 "%0,%1,%2,%3"
#define NSA_O4 NSA_D(0), NSA_D(1), NSA_D(2), NSA_D(3)
// clang-format off
#define NSA_L8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define NSA_L16 NSA_L8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define NSA_L24 NSA_L16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define NSA_L32 NSA_L24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define NSA_L40 NSA_L32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define NSA_L48 NSA_L40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define NSA_L56 NSA_L48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define NSA_L64 NSA_L56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define NSA_L72 NSA_L64 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define NSA_L80 NSA_L72 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define NSA_L88 NSA_L80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define NSA_L96 NSA_L88 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define NSA_L104 NSA_L96 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define NSA_L112 NSA_L104 ",%104,%105,%106,%107,%108,%109,%110,%111"
#define NSA_L120 NSA_L112 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define NSA_L128 NSA_L120 ",%120,%121,%122,%123,%124,%125,%126,%127"
#define NSA_O8 NSA_D8(0)
#define NSA_O16 NSA_O8, NSA_D8(8)
#define NSA_O24 NSA_O16, NSA_D8(16)
#define NSA_O32 NSA_O24, NSA_D8(24)
#define NSA_O40 NSA_O32, NSA_D8(32)
#define NSA_O48 NSA_O40, NSA_D8(40)
#define NSA_O56 NSA_O48, NSA_D8(48)
#define NSA_O64 NSA_O56, NSA_D8(56)
#define NSA_O72 NSA_O64, NSA_D8(64)
#define NSA_O80 NSA_O72, NSA_D8(72)
#define NSA_O88 NSA_O80, NSA_D8(80)
#define NSA_O96 NSA_O88, NSA_D8(88)
#define NSA_O104 NSA_O96, NSA_D8(96)
#define NSA_O112 NSA_O104, NSA_D8(104)
#define NSA_O120 NSA_O112, NSA_D8(112)
#define NSA_O128 NSA_O120, NSA_D8(120)
// clang-format on

/// Trap: `accumulate` is a run-time predicate; whether an operand is MN-major is part of the instruction.
template <int N, int kAMnMajor = 0, int kBMnMajor = 0>
NSA_DEVICE void wgmma(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, int accumulate) {
#define NSA_WGMMA(n, registers, operands, i, j, k, l, m)                                               \
  if constexpr (N == n)                                                                                \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" k                                                  \
               ", 0;\n"                                                                                \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" registers "}, %" i ", %" j \
               ", p, 1, 1, %" l ", %" m ";\n}\n"                                                       \
               : operands                                                                              \
               : "l"(a), "l"(b), "r"(accumulate), "n"(kAMnMajor), "n"(kBMnMajor))
  static_assert(N == 8 || (N % 16 == 0 && N >= 16 && N <= 256));
  NSA_WGMMA(8, NSA_L4, NSA_O4, "4", "5", "6", "7", "8");
  NSA_WGMMA(16, NSA_L8, NSA_O8, "8", "9", "10", "11", "12");
  NSA_WGMMA(32, NSA_L16, NSA_O16, "16", "17", "18", "19", "20");
  NSA_WGMMA(48, NSA_L24, NSA_O24, "24", "25", "26", "27", "28");
  NSA_WGMMA(64, NSA_L32, NSA_O32, "32", "33", "34", "35", "36");
  NSA_WGMMA(80, NSA_L40, NSA_O40, "40", "41", "42", "43", "44");
  NSA_WGMMA(96, NSA_L48, NSA_O48, "48", "49", "50", "51", "52");
  NSA_WGMMA(112, NSA_L56, NSA_O56, "56", "57", "58", "59", "60");
  NSA_WGMMA(128, NSA_L64, NSA_O64, "64", "65", "66", "67", "68");
  NSA_WGMMA(144, NSA_L72, NSA_O72, "72", "73", "74", "75", "76");
  NSA_WGMMA(160, NSA_L80, NSA_O80, "80", "81", "82", "83", "84");
  NSA_WGMMA(176, NSA_L88, NSA_O88, "88", "89", "90", "91", "92");
  NSA_WGMMA(192, NSA_L96, NSA_O96, "96", "97", "98", "99", "100");
  NSA_WGMMA(208, NSA_L104, NSA_O104, "104", "105", "106", "107", "108");
  NSA_WGMMA(224, NSA_L112, NSA_O112, "112", "113", "114", "115", "116");
  NSA_WGMMA(240, NSA_L120, NSA_O120, "120", "121", "122", "123", "124");
  NSA_WGMMA(256, NSA_L128, NSA_O128, "128", "129", "130", "131", "132");
#undef NSA_WGMMA
}

/// A from registers, K-major. Trap: they are read until the wait.
template <int N, int kBMnMajor = 0>
NSA_DEVICE void wgmma(float (&d)[N / 2], const std::uint32_t (&a)[4], std::uint64_t b, int accumulate) {
#define NSA_WGMMA(n, registers, operands, i, j, k, l, m, o, p)                                                       \
  if constexpr (N == n)                                                                                              \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" o                                                                \
               ", 0;\n"                                                                                              \
               "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" registers "}, {%" i ",%" j ",%" k ",%" l \
               "}, %" m ", p, 1, 1, %" p ";\n}\n"                                                                    \
               : operands                                                                                            \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate), "n"(kBMnMajor))
  static_assert(N == 8 || (N % 16 == 0 && N >= 16 && N <= 256));
  NSA_WGMMA(8, NSA_L4, NSA_O4, "4", "5", "6", "7", "8", "9", "10");
  NSA_WGMMA(16, NSA_L8, NSA_O8, "8", "9", "10", "11", "12", "13", "14");
  NSA_WGMMA(32, NSA_L16, NSA_O16, "16", "17", "18", "19", "20", "21", "22");
  NSA_WGMMA(48, NSA_L24, NSA_O24, "24", "25", "26", "27", "28", "29", "30");
  NSA_WGMMA(64, NSA_L32, NSA_O32, "32", "33", "34", "35", "36", "37", "38");
  NSA_WGMMA(80, NSA_L40, NSA_O40, "40", "41", "42", "43", "44", "45", "46");
  NSA_WGMMA(96, NSA_L48, NSA_O48, "48", "49", "50", "51", "52", "53", "54");
  NSA_WGMMA(112, NSA_L56, NSA_O56, "56", "57", "58", "59", "60", "61", "62");
  NSA_WGMMA(128, NSA_L64, NSA_O64, "64", "65", "66", "67", "68", "69", "70");
  NSA_WGMMA(144, NSA_L72, NSA_O72, "72", "73", "74", "75", "76", "77", "78");
  NSA_WGMMA(160, NSA_L80, NSA_O80, "80", "81", "82", "83", "84", "85", "86");
  NSA_WGMMA(176, NSA_L88, NSA_O88, "88", "89", "90", "91", "92", "93", "94");
  NSA_WGMMA(192, NSA_L96, NSA_O96, "96", "97", "98", "99", "100", "101", "102");
  NSA_WGMMA(208, NSA_L104, NSA_O104, "104", "105", "106", "107", "108", "109", "110");
  NSA_WGMMA(224, NSA_L112, NSA_O112, "112", "113", "114", "115", "116", "117", "118");
  NSA_WGMMA(240, NSA_L120, NSA_O120, "120", "121", "122", "123", "124", "125", "126");
  NSA_WGMMA(256, NSA_L128, NSA_O128, "128", "129", "130", "131", "132", "133", "134");
#undef NSA_WGMMA
}

}  // namespace nsa::cuda
#endif
