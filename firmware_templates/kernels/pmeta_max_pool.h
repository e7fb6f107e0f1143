/* SPDX-License-Identifier: Apache-2.0
 * MaxPool: the first largest element of each window.
 *
 * Everything is inlined: each layer has functions of its own, in which its shape is a constant (pmeta_layers.c). */
#ifndef PMETA_MAX_POOL_H
#define PMETA_MAX_POOL_H

#include "pmeta_inline.h"
#include "pmeta_numerics.h"
#include "pmeta_vector.h"

#include <stddef.h>
#include <stdint.h>

typedef struct pmeta_max_pool_shape {
    int32_t channels;
    int32_t in_h, in_w;
    int32_t out_h, out_w;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
    int32_t tap_bits; /* bits that number one tap of the window */
} pmeta_max_pool_shape;

/* taps: for each output the number of the winning tap, tap_bits each, as many to a 32-bit word as fit;
 * NULL where no gradient is needed. */
PMETA_INLINE void pmeta_max_pool_forward(const pmeta_max_pool_shape *s, const float *x, /* (C, in_h, in_w) */
                                         float *y,                                      /* (C, out_h, out_w) */
                                         uint32_t *taps);

PMETA_INLINE void pmeta_max_pool_input_gradient(const pmeta_max_pool_shape *s, const float *gy, /* (C, out_h, out_w) */
                                                const uint32_t *taps, float *gx);               /* (C, in_h, in_w) */

/* --- implementation --- */

/* Whether no window reaches beyond the input. */
PMETA_INLINE int pmeta_max_pool_inside(const pmeta_max_pool_shape *s)
{
    const int32_t last_row = (s->out_h - 1) * s->stride_h - s->pad_top + (s->kernel_h - 1) * s->dilation_h;
    const int32_t last_column = (s->out_w - 1) * s->stride_w - s->pad_left + (s->kernel_w - 1) * s->dilation_w;
    return s->pad_top == 0 && s->pad_left == 0 && last_row < s->in_h && last_column < s->in_w;
}

/* Number of the winning tap (row-major in the kernel) of the window whose first tap lies at (row, column). */
PMETA_INLINE int32_t pmeta_max_pool_best(const pmeta_max_pool_shape *s, const float *x, int32_t row, int32_t column,
                                         float *best)
{
    int32_t winner = -1;
    PMETA_UNROLL
    for (int32_t i = 0; i < s->kernel_h; i++) {
        const int32_t r = row + i * s->dilation_h;
        PMETA_UNROLL
        for (int32_t j = 0; j < s->kernel_w; j++) {
            const int32_t q = column + j * s->dilation_w;
            if (!pmeta_max_pool_inside(s) && (r < 0 || r >= s->in_h || q < 0 || q >= s->in_w)) {
                continue;
            }
            const float v = x[r * s->in_w + q];
            /* Most elements end at the first comparison. */
            if (winner < 0 || (!(v <= *best) && (v > *best || v != v))) {
                *best = v;
                winner = i * s->kernel_w + j;
            }
        }
    }
    return winner;
}

/* Numbers of taps as they are packed: next goes the lowest of the bits that are left in a word. */
typedef struct pmeta_max_pool_taps {
    uint32_t *next; /* NULL: nowhere */
    uint32_t word;
    int32_t used; /* bits of the word */
} pmeta_max_pool_taps;

PMETA_INLINE void pmeta_max_pool_pack(const pmeta_max_pool_shape *s, int32_t tap, pmeta_max_pool_taps *taps)
{
    taps->word |= (uint32_t)tap << taps->used;
    taps->used += s->tap_bits;
    if (taps->used + s->tap_bits > 32) {
        if (taps->next != NULL) {
            *taps->next++ = taps->word;
        }
        taps->word = 0;
        taps->used = 0;
    }
}

#if PMETA_VECTOR > 1
/* Whether a row of windows can go by vectors. */
PMETA_INLINE int pmeta_max_pool_has_vectors(const pmeta_max_pool_shape *s)
{
    return pmeta_max_pool_inside(s) && s->stride_w <= 2 && 32 % s->tap_bits == 0 && PMETA_VECTOR * s->tap_bits <= 32;
}

/* Packs `count` taps, a constant, where 32 is a multiple of tap_bits. */
PMETA_INLINE void pmeta_max_pool_pack_some(const pmeta_max_pool_shape *s, int32_t count, pmeta_ints tap,
                                           pmeta_max_pool_taps *taps)
{
    const pmeta_ints shifted = tap << pmeta_vector_lanes() * s->tap_bits;
    uint64_t bits = 0;
    PMETA_UNROLL
    for (int32_t n = 0; n < count; n++) {
        bits |= (uint32_t)shifted[n];
    }
    bits = taps->word | bits << taps->used;
    taps->used += count * s->tap_bits;
    if (taps->used >= 32) {
        if (taps->next != NULL) {
            *taps->next++ = (uint32_t)bits;
        }
        bits >>= 32;
        taps->used -= 32;
    }
    taps->word = (uint32_t)bits;
}

/* `count` windows of a row side by side, a constant; x is the first one's first tap. */
PMETA_INLINE void pmeta_max_pool_windows(const pmeta_max_pool_shape *s, int32_t count, const float *x, float *y,
                                         pmeta_max_pool_taps *taps)
{
    pmeta_floats best = {0};
    pmeta_ints winner = {0};
    PMETA_UNROLL
    for (int32_t i = 0; i < s->kernel_h; i++) {
        PMETA_UNROLL
        for (int32_t j = 0; j < s->kernel_w; j++) {
            const float *from = x + i * s->dilation_h * s->in_w + j * s->dilation_w;
            const pmeta_floats v =
                (s->stride_w == 2) ? pmeta_vector_load_every_other(from, count) : pmeta_vector_load_some(from, count);
            const pmeta_ints wins = (v > best) | (v != v) | -(i + j == 0);
            best = pmeta_vector_select(wins, v, best);
            winner = (wins & (i * s->kernel_w + j)) | (winner & ~wins);
        }
    }
    pmeta_vector_store_some(y, best, count);
    pmeta_max_pool_pack_some(s, count, winner, taps);
}

/* A row of windows; x is the first one's first tap. */
PMETA_INLINE void pmeta_max_pool_row(const pmeta_max_pool_shape *s, const float *x, float *y, pmeta_max_pool_taps *taps)
{
    const int32_t rest = s->out_w % PMETA_VECTOR;
    int32_t ow = 0;
    for (; ow < s->out_w - rest; ow += PMETA_VECTOR) {
        pmeta_max_pool_windows(s, PMETA_VECTOR, x + ow * s->stride_w, y + ow, taps);
    }
    if (rest > 0) {
        pmeta_max_pool_windows(s, rest, x + ow * s->stride_w, y + ow, taps);
    }
}
#endif

PMETA_INLINE void pmeta_max_pool_forward(const pmeta_max_pool_shape *s, const float *x, float *y, uint32_t *taps)
{
    pmeta_max_pool_taps packed = {taps, 0, 0};
    for (int32_t c = 0; c < s->channels; c++) {
        for (int32_t oh = 0; oh < s->out_h; oh++) {
#if PMETA_VECTOR > 1
            if (pmeta_max_pool_has_vectors(s)) {
                pmeta_max_pool_row(s, x + oh * s->stride_h * s->in_w, y, &packed);
                y += s->out_w;
                continue;
            }
#endif
            for (int32_t ow = 0; ow < s->out_w; ow++) {
                float best = 0.0f;
                const int32_t tap =
                    pmeta_max_pool_best(s, x, oh * s->stride_h - s->pad_top, ow * s->stride_w - s->pad_left, &best);
                *y++ = best;
                pmeta_max_pool_pack(s, tap, &packed);
            }
        }
        x += s->in_h * s->in_w;
    }
    if (taps != NULL && packed.used > 0) {
        *packed.next = packed.word;
    }
}

/* The gradient of one window where windows neither overlap nor leave gaps: it writes all of its inputs, and only rows
 * and columns that no window reads are cleared. gx is the window's first tap. */
PMETA_INLINE void pmeta_max_pool_scatter(const pmeta_max_pool_shape *s, int32_t tap, float g, float *gx)
{
    PMETA_UNROLL
    for (int32_t i = 0; i < s->kernel_h; i++) {
        PMETA_UNROLL
        for (int32_t j = 0; j < s->kernel_w; j++) {
            gx[i * s->in_w + j] = (tap == i * s->kernel_w + j) ? 0.0f + g : 0.0f;
        }
    }
}

/* Clears what lies right of and below all windows. */
PMETA_INLINE void pmeta_max_pool_clear_rest(const pmeta_max_pool_shape *s, float *gx)
{
    const int32_t height = s->out_h * s->kernel_h;
    const int32_t width = s->out_w * s->kernel_w;
    for (int32_t r = 0; r < height; r++) {
        PMETA_UNROLL
        for (int32_t q = width; q < s->in_w; q++) {
            gx[r * s->in_w + q] = 0.0f;
        }
    }
    for (int32_t e = height * s->in_w; e < s->in_h * s->in_w; e++) {
        gx[e] = 0.0f;
    }
}

/* Numbers of taps as they are read: the lowest of the bits that are left in a word comes next. */
typedef struct pmeta_max_pool_packed {
    const uint32_t *word;
    int32_t used; /* bits of the word */
} pmeta_max_pool_packed;

PMETA_INLINE int32_t pmeta_max_pool_unpack(const pmeta_max_pool_shape *s, pmeta_max_pool_packed *taps)
{
    const uint32_t tap = *taps->word >> taps->used & (((uint32_t)1 << s->tap_bits) - 1u);
    taps->used += s->tap_bits;
    if (taps->used + s->tap_bits > 32) {
        taps->word++;
        taps->used = 0;
    }
    return (int32_t)tap;
}

#if PMETA_VECTOR > 1
/* `count` taps, a constant, where 32 is a multiple of tap_bits. */
PMETA_INLINE pmeta_ints pmeta_max_pool_unpack_some(const pmeta_max_pool_shape *s, int32_t count,
                                                   pmeta_max_pool_packed *taps)
{
    uint32_t bits = *taps->word >> taps->used;
    taps->used += count * s->tap_bits;
    if (taps->used >= 32) {
        taps->word++;
        taps->used -= 32;
        bits |= (taps->used > 0) ? *taps->word << (count * s->tap_bits - taps->used) : 0u;
    }
    const pmeta_ints numbers = (int32_t)bits >> pmeta_vector_lanes() * s->tap_bits;
    return numbers & (int32_t)((1u << s->tap_bits) - 1u);
}

/* The gradients of `count` windows of a row side by side, a constant; gx is the first one's first tap. */
PMETA_INLINE void pmeta_max_pool_scatter_some(const pmeta_max_pool_shape *s, int32_t count, const float *gy,
                                              pmeta_max_pool_packed *taps, float *gx)
{
    const pmeta_floats g = 0.0f + pmeta_vector_load_some(gy, count);
    const pmeta_ints tap = pmeta_max_pool_unpack_some(s, count, taps);
    PMETA_UNROLL
    for (int32_t i = 0; i < s->kernel_h; i++) {
        pmeta_floats first, second;
        pmeta_vector_interleave(pmeta_vector_masked(g, tap == 2 * i), pmeta_vector_masked(g, tap == 2 * i + 1), &first,
                                &second);
        pmeta_vector_store_some(gx + i * s->in_w, first, 2 * count);
        if (2 * count > PMETA_VECTOR) {
            pmeta_vector_store_some(gx + i * s->in_w + PMETA_VECTOR, second, 2 * count - PMETA_VECTOR);
        }
    }
}
#endif

/* The gradients of a row of windows that neither overlap nor leave gaps; gx is the first one's first tap. */
PMETA_INLINE void pmeta_max_pool_scatter_row(const pmeta_max_pool_shape *s, const float *gy,
                                             pmeta_max_pool_packed *taps, float *gx)
{
    int32_t ow = 0;
#if PMETA_VECTOR > 1
    if (pmeta_max_pool_has_vectors(s) && s->kernel_w == 2) {
        const int32_t rest = s->out_w % PMETA_VECTOR;
        for (; ow < s->out_w - rest; ow += PMETA_VECTOR) {
            pmeta_max_pool_scatter_some(s, PMETA_VECTOR, gy + ow, taps, gx + 2 * ow);
        }
        if (rest > 0) {
            pmeta_max_pool_scatter_some(s, rest, gy + ow, taps, gx + 2 * ow);
        }
        return;
    }
#endif
    for (; ow < s->out_w; ow++) {
        pmeta_max_pool_scatter(s, pmeta_max_pool_unpack(s, taps), gy[ow], gx + ow * s->kernel_w);
    }
}

PMETA_INLINE void pmeta_max_pool_input_gradient(const pmeta_max_pool_shape *s, const float *gy, const uint32_t *taps,
                                                float *gx)
{
    const int32_t size = s->in_h * s->in_w;
    const int tiles = pmeta_max_pool_inside(s) && s->stride_h == s->kernel_h && s->stride_w == s->kernel_w &&
                      s->dilation_h == 1 && s->dilation_w == 1;
    pmeta_max_pool_packed packed = {taps, 0};
    for (int32_t c = 0; c < s->channels; c++) {
        if (tiles) {
            pmeta_max_pool_clear_rest(s, gx);
        }
        for (int32_t e = 0; !tiles && e < size; e++) {
            gx[e] = 0.0f;
        }
        for (int32_t oh = 0; oh < s->out_h; oh++) {
            const int32_t row = oh * s->stride_h - s->pad_top;
            if (tiles) {
                pmeta_max_pool_scatter_row(s, gy, &packed, gx + row * s->in_w);
            }
            for (int32_t ow = 0; !tiles && ow < s->out_w; ow++) {
                const int32_t tap = pmeta_max_pool_unpack(s, &packed);
                const int32_t r = row + tap / s->kernel_w * s->dilation_h;
                gx[r * s->in_w + ow * s->stride_w - s->pad_left + tap % s->kernel_w * s->dilation_w] += gy[ow];
            }
            gy += s->out_w;
        }
        gx += size;
    }
}

#endif
