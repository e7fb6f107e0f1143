/* SPDX-License-Identifier: Apache-2.0
 * IEEE binary16. */
#ifndef PMETA_FLOAT16_H
#define PMETA_FLOAT16_H

#include "pmeta_bits.h"

#include <stdint.h>

typedef uint16_t pmeta_float16; /* the bits */

static inline float pmeta_float_of_float16(pmeta_float16 half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t magnitude = half & 0x7fffu;
    if (magnitude < 0x400u) {
        return pmeta_float_from_bits(sign | pmeta_bits_from_float((float)magnitude * 0x1p-24f)); /* exact */
    }
    const uint32_t bits = magnitude << 13;
    return pmeta_float_from_bits(sign | ((magnitude < 0x7c00u) ? bits + 0x38000000u : bits | 0x7f800000u));
}

#endif
