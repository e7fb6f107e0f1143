/* SPDX-License-Identifier: Apache-2.0
 * Conv, forward, a block with Helium: the sums of an output's filters are a vector, weights are gathered, inputs are
 * scalar operands. Included by pmeta_conv_forward.h. */
#include "pmeta_helium.h"

/* Adds one kernel row, from the addresses `w` of its first weights on, to the sums of a block; as
 * pmeta_conv_forward_taps. */
PMETA_INLINE void pmeta_conv_forward_taps(const pmeta_conv_shape *s, const pmeta_conv_input *x, int32_t c,
                                          int32_t index, int32_t outputs, int32_t column, int clipped, uint32x4_t w,
                                          float32x4_t *sum)
{
    float columns[PMETA_CONV_COLUMNS];
    const int decoded = pmeta_conv_decode(s, x, c, index, outputs, column, clipped, columns);
    PMETA_UNROLL
    for (int32_t j = 0; j < s->kernel_w; j++) {
        const float32x4_t tap = pmeta_gather(w, j);
        PMETA_UNROLL
        for (int32_t p = 0; p < outputs; p++) {
            const int32_t q = p * s->stride_w + j * s->dilation_w;
            if (!clipped || (column + q >= 0 && column + q < s->in_w)) {
                const float value = decoded ? columns[q] : pmeta_conv_read(x, c, index + q);
                sum[p] = pmeta_add_product(sum[p], tap, value);
            }
        }
    }
}

PMETA_INLINE void pmeta_conv_forward_block(const pmeta_conv_shape *s, const pmeta_conv_input *x, int32_t first_channel,
                                           int32_t filters, int32_t oh, int32_t ow, int32_t outputs, int clipped,
                                           const float *w, const float *bias, float *y)
{
    const int32_t channels = s->channels / s->groups;
    const int32_t taps = s->kernel_h * s->kernel_w;
    const int32_t first_row = oh * s->stride_h - s->pad_top;
    const int32_t first_column = ow * s->stride_w - s->pad_left;
    const int32_t begin = (first_row < 0) ? pmeta_divided_up(-first_row, s->dilation_h) : 0;
    const int32_t last = (s->in_h > first_row) ? (s->in_h - 1 - first_row) / s->dilation_h : -1;
    const int32_t end = pmeta_min(s->kernel_h, last + 1);
    float32x4_t sum[PMETA_BLOCK_WIDTH];
    const float32x4_t start = (bias != NULL) ? pmeta_gather(pmeta_addresses(bias, 1, filters), 0) : vdupq_n_f32(0.0f);
    PMETA_UNROLL
    for (int32_t p = 0; p < outputs; p++) {
        sum[p] = start;
    }
    uint32x4_t tap = pmeta_addresses(w + begin * s->kernel_w, channels * taps, filters);
    for (int32_t c = 0; c < channels; c++) {
        int32_t row = ((first_channel + c) * s->in_h + first_row + begin * s->dilation_h) * s->in_w;
        for (int32_t i = begin; i < end; i++) {
            pmeta_conv_forward_taps(s, x, first_channel + c, row + first_column, outputs, clipped ? first_column : 0,
                                    clipped, tap, sum);
            tap = pmeta_further(tap, s->kernel_w);
            row += s->dilation_h * s->in_w;
        }
        tap = pmeta_further(tap, taps - pmeta_max(0, end - begin) * s->kernel_w);
    }
    const uint32x4_t output = pmeta_addresses(y + oh * s->out_w + ow, s->out_h * s->out_w, filters);
    PMETA_UNROLL
    for (int32_t p = 0; p < outputs; p++) {
        pmeta_scatter(output, p, sum[p]);
    }
}
