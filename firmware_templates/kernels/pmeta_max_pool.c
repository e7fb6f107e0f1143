/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_max_pool.h"

#include "pmeta_numerics.h"

#include <stddef.h>

/* Number of the winning tap (row-major in the kernel) of the window whose first tap lies at (row, column). */
static int32_t best_tap(const pmeta_max_pool_shape *s, const float *x, int32_t row, int32_t column, float *best)
{
    int32_t winner = -1;
    for (int32_t i = 0; i < s->kernel_h; i++) {
        const int32_t r = row + i * s->dilation_h;
        if (r < 0 || r >= s->in_h) {
            continue;
        }
        for (int32_t j = 0; j < s->kernel_w; j++) {
            const int32_t q = column + j * s->dilation_w;
            if (q < 0 || q >= s->in_w) {
                continue;
            }
            const float v = x[r * s->in_w + q];
            if (winner < 0 || v > *best || v != v) {
                *best = v;
                winner = i * s->kernel_w + j;
            }
        }
    }
    return winner;
}

void pmeta_max_pool_forward(const pmeta_max_pool_shape *s, const float *x, float *y, uint32_t *taps)
{
    uint32_t word = 0;
    int32_t used = 0; /* bits of the current word */
    for (int32_t c = 0; c < s->channels; c++) {
        for (int32_t oh = 0; oh < s->out_h; oh++) {
            for (int32_t ow = 0; ow < s->out_w; ow++) {
                float best = 0.0f;
                const int32_t tap =
                    best_tap(s, x, oh * s->stride_h - s->pad_top, ow * s->stride_w - s->pad_left, &best);
                *y++ = best;
                if (taps != NULL) {
                    word |= (uint32_t)tap << used;
                    used += s->tap_bits;
                    if (used + s->tap_bits > 32) {
                        *taps++ = word;
                        word = 0;
                        used = 0;
                    }
                }
            }
        }
        x += s->in_h * s->in_w;
    }
    if (taps != NULL && used > 0) {
        *taps = word;
    }
}

void pmeta_max_pool_input_gradient(const pmeta_max_pool_shape *s, const float *gy, const uint32_t *taps, float *gx)
{
    const uint32_t tap_mask = ((uint32_t)1 << s->tap_bits) - 1u;
    const int32_t size = s->in_h * s->in_w;
    int32_t used = 0;
    for (int32_t c = 0; c < s->channels; c++) {
        for (int32_t e = 0; e < size; e++) {
            gx[e] = 0.0f;
        }
        for (int32_t oh = 0; oh < s->out_h; oh++) {
            for (int32_t ow = 0; ow < s->out_w; ow++) {
                const int32_t tap = (int32_t)(*taps >> used & tap_mask);
                const int32_t row = oh * s->stride_h - s->pad_top + tap / s->kernel_w * s->dilation_h;
                const int32_t column = ow * s->stride_w - s->pad_left + tap % s->kernel_w * s->dilation_w;
                gx[row * s->in_w + column] += *gy++;
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
