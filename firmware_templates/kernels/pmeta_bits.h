/* SPDX-License-Identifier: Apache-2.0
 * A float32 and its bits. By the builtin: memcpy itself is a call where the library is built freestanding. */
#ifndef PMETA_BITS_H
#define PMETA_BITS_H

#include <stdint.h>

static inline float pmeta_float_from_bits(uint32_t bits)
{
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t pmeta_bits_from_float(float x)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &x, sizeof bits);
    return bits;
}

#endif
