/* SPDX-License-Identifier: Apache-2.0
 * Conv, gradient of its input, a block with Helium: the sums of an input's channels are a vector, weights are gathered,
 * gradients of outputs are scalar operands. Included by pmeta_conv_input_gradient.h. */
#include "pmeta_helium.h"

/* Adds one tap with these weights, which reaches the output `ow` columns on: of the gradients g of outputs from column
 * n of their row on. */
PMETA_INLINE void pmeta_conv_input_tap(const pmeta_conv_shape *s, int32_t ow, int32_t n, int32_t inputs, int clipped,
                                       float32x4_t weights, const float *g, float32x4_t *sum)
{
    PMETA_UNROLL
    for (int32_t p = 0; p < inputs; p++) {
        if (!clipped || (n + ow + p >= 0 && n + ow + p < s->out_w)) {
            sum[p] = pmeta_add_product(sum[p], weights, g[ow + p]);
        }
    }
}

/* A block as in pmeta_conv_input_gradient.h; `channels` at most as many as lanes. */
PMETA_INLINE void pmeta_conv_input_block(const pmeta_conv_shape *s, int32_t channels, int32_t row,
                                         pmeta_conv_reach reach, int32_t phase, int32_t n, int32_t inputs, int clipped,
                                         int32_t first, const float *w, const float *gy, float *gx)
{
    const int32_t taps = s->kernel_h * s->kernel_w;
    const int32_t step = pmeta_conv_row_step(s);
    const uint32x4_t input = pmeta_addresses(gx + row * s->in_w + phase + n * s->stride_w, s->in_h * s->in_w, channels);
    float32x4_t sum[PMETA_BLOCK_WIDTH];
    PMETA_UNROLL
    for (int32_t p = 0; p < inputs; p++) {
        sum[p] = first ? vdupq_n_f32(0.0f) : pmeta_gather(input, p * s->stride_w);
    }
    uint32x4_t tap = pmeta_addresses(w + reach.first * s->kernel_w, taps, channels);
    const float *outputs = gy + reach.output * s->out_w + n;
    for (int32_t f = 0; f < s->filters / s->groups; f++) {
        const float *g = outputs;
        for (int32_t i = 0; i < reach.count; i++) {
            PMETA_UNROLL
            for (int32_t j = 0; j < s->kernel_w; j++) {
                if ((phase + s->pad_left - j * s->dilation_w) % s->stride_w == 0) {
                    pmeta_conv_input_tap(s, (phase + s->pad_left - j * s->dilation_w) / s->stride_w, n, inputs, clipped,
                                         pmeta_gather(tap, j), g, sum);
                }
            }
            tap = pmeta_further(tap, step * s->kernel_w);
            g -= step * s->dilation_h / s->stride_h * s->out_w;
        }
        tap = pmeta_further(tap, s->channels / s->groups * taps - reach.count * step * s->kernel_w);
        outputs += s->out_h * s->out_w;
    }
    PMETA_UNROLL
    for (int32_t p = 0; p < inputs; p++) {
        pmeta_scatter(input, p * s->stride_w, sum[p]);
    }
}
