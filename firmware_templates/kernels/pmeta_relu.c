/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_relu.h"

#include "pmeta_bits.h"
#include "pmeta_inline.h"
#include "pmeta_numerics.h"

#include <stddef.h>

/* Whether x <= 0, from its bits: without a floating-point unit a comparison is a call. */
static inline int is_not_positive(float x)
{
    const uint32_t bits = pmeta_bits_from_float(x);
    return (bits & 0x80000000u) ? bits <= 0xff800000u : bits == 0u; /* beyond lie the NaN */
}

/* At most 32 elements: their part of the mask. */
static uint32_t forward_word(int32_t count, float *x)
{
    uint32_t word = 0;
    PMETA_UNROLL_SOME
    for (int32_t e = 0; e < count; e++) {
        if (is_not_positive(x[e])) {
            x[e] = 0.0f;
        } else {
            word |= (uint32_t)1 << e;
        }
    }
    return word;
}

void pmeta_relu_forward(int32_t count, float *x, uint32_t *mask)
{
    for (int32_t start = 0; start < count; start += 32) {
        const uint32_t word = forward_word(pmeta_min(count - start, 32), x + start);
        if (mask != NULL) {
            *mask++ = word;
        }
    }
}

void pmeta_relu_input_gradient(int32_t count, const uint32_t *mask, float *g)
{
    for (int32_t start = 0; start < count; start += 32) {
        const int32_t end = pmeta_min(count, start + 32);
        uint32_t word = *mask++;
        PMETA_UNROLL_SOME
        for (int32_t e = start; e < end; e++) {
            if ((word & 1u) == 0u) {
                g[e] = 0.0f;
            }
            word >>= 1;
        }
    }
}
