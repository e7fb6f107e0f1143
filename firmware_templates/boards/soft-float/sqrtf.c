/* SPDX-License-Identifier: Apache-2.0
 *
 * The square root on a core without a floating-point unit, where there is no C library either: rounded to nearest.
 */
#include <stdint.h>
#include <string.h>

#define FRACTION_BITS 23
#define LEADING_BIT   (1u << FRACTION_BITS)
#define EXPONENT_BIAS 127
#define INFINITY_BITS 0x7F800000u
#define NAN_BITS      0x7FC00000u
#define ROOT_BITS     25 /* of a significand, and one that decides the rounding */

float sqrtf(float x);

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The integer part of the square root of radicand * 2**18, bit by bit; radicand >= 2**30. */
static uint32_t root_of(uint32_t radicand)
{
    uint32_t root = 0, rest = 0;
    for (int32_t bit = 0; bit < ROOT_BITS; bit++) {
        const uint32_t trial = root << 2 | 1u;
        rest = rest << 2 | radicand >> 30;
        radicand <<= 2;
        root <<= 1;
        if (rest >= trial) {
            rest -= trial;
            root |= 1u;
        }
    }
    return root;
}

float sqrtf(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (bits << 1 == 0u || bits == INFINITY_BITS) {
        return x; /* a zero keeps its sign */
    }
    if (bits > INFINITY_BITS) {
        return from_bits(NAN_BITS); /* of NaN, of what is negative */
    }
    int32_t exponent = (int32_t)(bits >> FRACTION_BITS);
    uint32_t significand = bits & (LEADING_BIT - 1u);
    if (exponent == 0) { /* subnormal */
        for (exponent = 1; (significand & LEADING_BIT) == 0u; exponent--) {
            significand <<= 1;
        }
    }
    significand |= LEADING_BIT;

    /* x = radicand * 2**(exponent - 30) with an even exponent. Halfway between two floats lies no root of a float. */
    exponent -= EXPONENT_BIAS;
    const uint32_t odd = (uint32_t)exponent & 1u;
    const uint32_t root = root_of(significand << (7u + odd));
    const int32_t half = (exponent - (int32_t)odd) / 2;
    return from_bits(((uint32_t)(half + EXPONENT_BIAS - 1) << FRACTION_BITS) + ((root + 1u) >> 1));
}
