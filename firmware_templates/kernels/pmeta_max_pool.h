/* SPDX-License-Identifier: Apache-2.0
 * MaxPool: the first largest element of each window.
 *
 * Everything is inlined: each layer has functions of its own, in which its shape is a constant (pmeta_layers.c). */
#ifndef PMETA_MAX_POOL_H
#define PMETA_MAX_POOL_H

#include "pmeta_inline.h"
#include "pmeta_numerics.h"

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

PMETA_INLINE void pmeta_max_pool_forward(const pmeta_max_pool_shape *s, const float *x, float *y, uint32_t *taps)
{
    uint32_t word = 0;
    int32_t used = 0; /* bits of the current word */
    for (int32_t c = 0; c < s->channels; c++) {
        for (int32_t oh = 0; oh < s->out_h; oh++) {
            for (int32_t ow = 0; ow < s->out_w; ow++) {
                float best = 0.0f;
                const int32_t tap =
                    pmeta_max_pool_best(s, x, oh * s->stride_h - s->pad_top, ow * s->stride_w - s->pad_left, &best);
                *y++ = best;
                word |= (uint32_t)tap << used;
                used += s->tap_bits;
                if (used + s->tap_bits > 32) {
                    if (taps != NULL) {
                        *taps++ = word;
                    }
                    word = 0;
                    used = 0;
                }
            }
        }
        x += s->in_h * s->in_w;
    }
    if (taps != NULL && used > 0) {
        *taps = word;
    }
}

/* The gradient of one window where windows neither overlap nor leave gaps: it writes all of its inputs, and only rows
 * and columns that no window reads are cleared. */
PMETA_INLINE void pmeta_max_pool_scatter(const pmeta_max_pool_shape *s, int32_t row, int32_t column, int32_t tap,
                                         float g, float *gx)
{
    PMETA_UNROLL
    for (int32_t i = 0; i < s->kernel_h; i++) {
        PMETA_UNROLL
        for (int32_t j = 0; j < s->kernel_w; j++) {
            gx[(row + i) * s->in_w + column + j] = (tap == i * s->kernel_w + j) ? 0.0f + g : 0.0f;
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

PMETA_INLINE void pmeta_max_pool_input_gradient(const pmeta_max_pool_shape *s, const float *gy, const uint32_t *taps,
                                                float *gx)
{
    const uint32_t tap_mask = ((uint32_t)1 << s->tap_bits) - 1u;
    const int32_t size = s->in_h * s->in_w;
    const int tiles = pmeta_max_pool_inside(s) && s->stride_h == s->kernel_h && s->stride_w == s->kernel_w &&
                      s->dilation_h == 1 && s->dilation_w == 1;
    int32_t used = 0;
    for (int32_t c = 0; c < s->channels; c++) {
        if (tiles) {
            pmeta_max_pool_clear_rest(s, gx);
        }
        for (int32_t e = 0; !tiles && e < size; e++) {
            gx[e] = 0.0f;
        }
        for (int32_t oh = 0; oh < s->out_h; oh++) {
            for (int32_t ow = 0; ow < s->out_w; ow++) {
                const int32_t tap = (int32_t)(*taps >> used & tap_mask);
                const int32_t row = oh * s->stride_h - s->pad_top;
                const int32_t column = ow * s->stride_w - s->pad_left;
                if (tiles) {
                    pmeta_max_pool_scatter(s, row, column, tap, *gy, gx);
                } else {
                    const int32_t r = row + tap / s->kernel_w * s->dilation_h;
                    gx[r * s->in_w + column + tap % s->kernel_w * s->dilation_w] += *gy;
                }
                gy++;
                used += s->tap_bits;
                if (used + s->tap_bits > 32) {
                    taps++;
                    used = 0;
                }
            }
        }
        gx += size;
    }
}

#endif
