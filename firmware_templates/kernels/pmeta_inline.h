/* SPDX-License-Identifier: Apache-2.0
 * For kernels that are compiled once per shape: with everything inlined and the shape a constant, the compiler knows
 * every bound, unrolls the loops over a block of outputs, and keeps the block in registers. */
#ifndef PMETA_INLINE_H
#define PMETA_INLINE_H

#include "pmeta_numerics.h"

#include <stdint.h>

#if !defined(PMETA_INLINE)
#define PMETA_INLINE static inline __attribute__((always_inline))
#endif

/* Before a loop whose bounds are constants: writes out all its rounds. PMETA_UNROLL_SOME: before any loop, a few. Where
 * all three are defined otherwise, code is slow, small, and quickly compiled, as sanitizers want it. */
#if defined(PMETA_UNROLL)
#elif defined(__clang__)
#pragma clang diagnostic ignored "-Wpass-failed" /* not every loop's bounds are known as early as clang asks */
#define PMETA_UNROLL      _Pragma("clang loop unroll(full)")
#define PMETA_UNROLL_SOME _Pragma("clang loop unroll_count(4)")
#else
#define PMETA_UNROLL      _Pragma("GCC unroll 64")
#define PMETA_UNROLL_SOME _Pragma("GCC unroll 4")
#endif

/* No floating-point unit. */
#if defined(__SOFTFP__) || (defined(__riscv) && !defined(__riscv_flen))
#define PMETA_SOFT_FLOAT
#endif

/* The size of a block of outputs that the core's registers hold: rows, and sums in a row. Without a floating-point unit
 * every operation is a call, which leaves room for one. */
#if defined(PMETA_HELIUM)
#define PMETA_BLOCK         20
#define PMETA_BLOCK_WIDTH   5
#define PMETA_BLOCK_HEIGHT  4
#define PMETA_BLOCK_OUTPUTS 4
#elif defined(PMETA_SOFT_FLOAT)
#define PMETA_BLOCK         1
#define PMETA_BLOCK_WIDTH   1
#define PMETA_BLOCK_HEIGHT  1
#define PMETA_BLOCK_OUTPUTS 1
#else
#define PMETA_BLOCK         16
#define PMETA_BLOCK_WIDTH   8
#define PMETA_BLOCK_HEIGHT  4
#define PMETA_BLOCK_OUTPUTS 4
#endif

PMETA_INLINE int32_t pmeta_min(int32_t a, int32_t b)
{
    return (a < b) ? a : b;
}

PMETA_INLINE int32_t pmeta_max(int32_t a, int32_t b)
{
    return (a > b) ? a : b;
}

/* a / b, rounded up; for a >= 0 */
PMETA_INLINE int32_t pmeta_divided_up(int32_t a, int32_t b)
{
    return (a + b - 1) / b;
}

/* `count` in equal parts of at most `most`: the size of a part. */
PMETA_INLINE int32_t pmeta_part(int32_t count, int32_t most)
{
    return pmeta_divided_up(count, pmeta_divided_up(count, most));
}

#endif
