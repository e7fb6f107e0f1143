/* SPDX-License-Identifier: Apache-2.0
 * A float32 and its bits. */
#ifndef PMETA_BITS_H
#define PMETA_BITS_H

#include <stdint.h>
#include <string.h>

static inline float pmeta_float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t pmeta_bits_from_float(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

#endif
