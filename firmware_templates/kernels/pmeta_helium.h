/* SPDX-License-Identifier: Apache-2.0
 * Helium (MVE): four floats at once. It takes subnormal numbers for zeros, which makes other numerics of what is
 * computed with it: docs/numerics.md, "binary32-helium/1". A vector's lanes are outputs, of as many filters or
 * channels, whose numbers lie far apart in memory: it is gathered from four addresses.
 *
 * GCC does not see that gathering reads memory: it may do so before what comes earlier in the same function. So no
 * kernel gathers what it has written. */
#ifndef PMETA_HELIUM_H
#define PMETA_HELIUM_H

#include "pmeta_inline.h"

#include <arm_mve.h>
#include <stdint.h>

#define PMETA_HELIUM_LANES 4

/* Addresses of the floats `stride` apart with these numbers. */
PMETA_INLINE uint32x4_t pmeta_strided(const float *first, uint32x4_t numbers, int32_t stride)
{
    return vaddq_n_u32(vmulq_n_u32(numbers, (uint32_t)stride * sizeof(float)), (uint32_t)(uintptr_t)first);
}

/* Addresses of `count` (1..4) floats, `stride` apart. The last one takes the lanes that are left: what is computed
 * there is computed twice, and stored twice in the same place. */
PMETA_INLINE uint32x4_t pmeta_addresses(const float *first, int32_t stride, int32_t count)
{
    const uint32x4_t lane = vidupq_n_u32(0, 1);
    const int32_t last = pmeta_min(count, PMETA_HELIUM_LANES) - 1;
    return pmeta_strided(first, (count < PMETA_HELIUM_LANES) ? vminq_u32(lane, vdupq_n_u32((uint32_t)last)) : lane,
                         stride);
}

/* The addresses of the floats `count` further on. */
PMETA_INLINE uint32x4_t pmeta_further(uint32x4_t at, int32_t count)
{
    return vaddq_n_u32(at, (uint32_t)count * sizeof(float));
}

/* The floats `place` (a constant) further on; the distance is part of the instruction. */
PMETA_INLINE float32x4_t pmeta_gather(uint32x4_t at, int32_t place)
{
    switch (place) {
    case 0:
        return vldrwq_gather_base_f32(at, 0);
    case 1:
        return vldrwq_gather_base_f32(at, 4);
    case 2:
        return vldrwq_gather_base_f32(at, 8);
    case 3:
        return vldrwq_gather_base_f32(at, 12);
    case 4:
        return vldrwq_gather_base_f32(at, 16);
    case 5:
        return vldrwq_gather_base_f32(at, 20);
    case 6:
        return vldrwq_gather_base_f32(at, 24);
    default:
        return vldrwq_gather_base_f32(pmeta_further(at, place), 0);
    }
}

/* sum + a * b, two operations. The empty statement keeps their place: a compiler that takes many products first runs
 * out of the eight registers. */
PMETA_INLINE float32x4_t pmeta_add_product(float32x4_t sum, float32x4_t a, float b)
{
    sum = vaddq_f32(sum, vmulq_n_f32(a, b));
    __asm volatile("" : "+w"(sum));
    return sum;
}

PMETA_INLINE void pmeta_scatter(uint32x4_t at, int32_t place, float32x4_t value)
{
    vstrwq_scatter_base_f32(pmeta_further(at, place), 0, value);
}

#endif
