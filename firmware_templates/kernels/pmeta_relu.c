/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_relu.h"

#include "pmeta_bits.h"
#include "pmeta_inline.h"
#include "pmeta_numerics.h"
#include "pmeta_vector.h"

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

static void input_gradient_word(int32_t count, uint32_t word, float *g)
{
    PMETA_UNROLL_SOME
    for (int32_t e = 0; e < count; e++) {
        if ((word & 1u) == 0u) {
            g[e] = 0.0f;
        }
        word >>= 1;
    }
}

#if PMETA_VECTOR > 1
static uint32_t forward_whole_word(float *x)
{
    pmeta_ints bits = {0};
    uint32_t word = 0;
    PMETA_UNROLL
    for (int32_t e = 0; e < 32; e += PMETA_VECTOR) {
        const pmeta_floats v = pmeta_vector_load(x + e);
        const pmeta_ints kept = ~(v <= 0.0f); /* NaN, too */
        pmeta_vector_store(x + e, pmeta_vector_masked(v, kept));
        bits |= kept & (1 << (pmeta_vector_lanes() + e));
    }
    PMETA_UNROLL
    for (int32_t lane = 0; lane < PMETA_VECTOR; lane++) {
        word |= (uint32_t)bits[lane];
    }
    return word;
}

static void input_gradient_whole_word(uint32_t word, float *g)
{
    PMETA_UNROLL
    for (int32_t e = 0; e < 32; e += PMETA_VECTOR) {
        const pmeta_ints bits = (int32_t)word & (1 << (pmeta_vector_lanes() + e));
        pmeta_vector_store(g + e, pmeta_vector_masked(pmeta_vector_load(g + e), bits != 0));
    }
}
#else
static uint32_t forward_whole_word(float *x)
{
    return forward_word(32, x);
}

static void input_gradient_whole_word(uint32_t word, float *g)
{
    input_gradient_word(32, word, g);
}
#endif

void pmeta_relu_forward(int32_t count, float *x, uint32_t *mask)
{
    for (int32_t start = 0; start < count; start += 32) {
        const int32_t rest = count - start;
        const uint32_t word = (rest >= 32) ? forward_whole_word(x + start) : forward_word(rest, x + start);
        if (mask != NULL) {
            *mask++ = word;
        }
    }
}

void pmeta_relu_input_gradient(int32_t count, const uint32_t *mask, float *g)
{
    int32_t start = 0;
    for (; start + 32 <= count; start += 32) {
        input_gradient_whole_word(*mask++, g + start);
    }
    if (start < count) {
        input_gradient_word(count - start, *mask, g + start);
    }
}
