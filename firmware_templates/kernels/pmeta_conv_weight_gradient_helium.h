/* SPDX-License-Identifier: Apache-2.0
 * Conv, gradient of its weights, a block with Helium: the sums of a weight's filters are a vector, gradients of outputs
 * are gathered, inputs are scalar operands. Included by pmeta_conv_weight_gradient.h. */
#include "pmeta_helium.h"

/* Channels of a block, at most: with four filters in the lanes. */
PMETA_INLINE int32_t pmeta_conv_weight_channels(int32_t taps)
{
    return PMETA_BLOCK / (PMETA_HELIUM_LANES * taps);
}

/* Sums of a block: by channel and tap. */
typedef struct pmeta_conv_sums {
    float32x4_t of[PMETA_BLOCK_HEIGHT][PMETA_BLOCK_WIDTH];
} pmeta_conv_sums;

/* Adds `outputs` outputs of a row, from column ow on, to the sums of `taps` taps from (i, j) on. x are the rows of each
 * channel, g the addresses of these outputs' gradients. Those at the ends of a row can have taps outside the input,
 * `clipped`. */
PMETA_INLINE void pmeta_conv_weight_outputs(const pmeta_conv_shape *s, int32_t channels, int32_t j, int32_t taps,
                                            int32_t ow, int32_t outputs, int clipped, const float *const *x,
                                            uint32x4_t g, pmeta_conv_sums *sums)
{
    PMETA_UNROLL
    for (int32_t p = 0; p < outputs; p++) {
        const float32x4_t gradient = pmeta_gather(g, p);
        PMETA_UNROLL
        for (int32_t c = 0; c < channels; c++) {
            PMETA_UNROLL
            for (int32_t t = 0; t < taps; t++) {
                const int32_t column = (ow + p) * s->stride_w + (j + t) * s->dilation_w - s->pad_left;
                if (!clipped || (column >= 0 && column < s->in_w)) {
                    sums->of[c][t] = pmeta_add_product(sums->of[c][t], gradient, x[c][column]);
                }
            }
        }
    }
}

/* Adds one row of outputs, whose gradients lie from the addresses g on. */
PMETA_INLINE void pmeta_conv_weight_row(const pmeta_conv_shape *s, int32_t channels, int32_t j, int32_t taps,
                                        const float *const *x, uint32x4_t g, pmeta_conv_sums *sums)
{
    const pmeta_conv_columns columns = pmeta_conv_columns_of(s, j, taps);
    PMETA_UNROLL
    for (int32_t ow = 0; ow < columns.left; ow++) {
        pmeta_conv_weight_outputs(s, channels, j, taps, ow, 1, 1, x, pmeta_further(g, ow), sums);
    }
    uint32x4_t block = pmeta_further(g, columns.left);
    for (int32_t ow = columns.left; ow < columns.rest; ow += PMETA_BLOCK_OUTPUTS) {
        pmeta_conv_weight_outputs(s, channels, j, taps, ow, PMETA_BLOCK_OUTPUTS, 0, x, block, sums);
        block = pmeta_further(block, PMETA_BLOCK_OUTPUTS);
    }
    pmeta_conv_weight_outputs(s, channels, j, taps, columns.rest, columns.right - columns.rest, 0, x, block, sums);
    PMETA_UNROLL
    for (int32_t ow = columns.right; ow < s->out_w; ow++) {
        pmeta_conv_weight_outputs(s, channels, j, taps, ow, 1, 1, x, pmeta_further(g, ow), sums);
    }
}

/* Adds the gradients of `taps` taps from (i, j) on; channels is the block's size, filters at most the lanes. gy,
 * gamma_bw and grad are those of the group. */
PMETA_INLINE void pmeta_conv_weight_taps(const pmeta_conv_shape *s, const pmeta_conv_pairs *pairs, int32_t filters,
                                         int32_t channels, int32_t i, int32_t j, int32_t taps, const float *gy,
                                         const float *gamma_bw, float *grad)
{
    const pmeta_conv_rows rows = pmeta_conv_rows_of(s, i);
    const float *x[PMETA_BLOCK_HEIGHT];
    pmeta_conv_sums sums;
    int32_t filter[PMETA_HELIUM_LANES];
    PMETA_UNROLL
    for (int32_t f = 0; f < PMETA_HELIUM_LANES; f++) {
        filter[f] = pairs->filter[pmeta_conv_filled(f, pmeta_min(filters, pairs->filters))];
    }
    const uint32x4_t lanes = vldrwq_u32((const uint32_t *)filter);
    PMETA_UNROLL
    for (int32_t c = 0; c < channels; c++) {
        x[c] = pairs->x[pmeta_conv_filled(c, pairs->channels)] + rows.input * s->in_w;
        PMETA_UNROLL
        for (int32_t t = 0; t < taps; t++) {
            sums.of[c][t] = vdupq_n_f32(0.0f);
        }
    }
    uint32x4_t g = pmeta_strided(gy + rows.begin * s->out_w, lanes, s->out_h * s->out_w);
    for (int32_t oh = rows.begin; oh < rows.end; oh++) {
        pmeta_conv_weight_row(s, channels, j, taps, x, g, &sums);
        PMETA_UNROLL
        for (int32_t c = 0; c < channels; c++) {
            x[c] += s->stride_h * s->in_w;
        }
        g = pmeta_further(g, s->out_w);
    }
    const int32_t weights = s->channels / s->groups * s->kernel_h * s->kernel_w; /* of a filter */
    PMETA_UNROLL
    for (int32_t c = 0; c < channels; c++) {
        if (c < pairs->channels) {
            const int32_t place = (pairs->channel[c] * s->kernel_h + i) * s->kernel_w + j;
            const uint32x4_t total = pmeta_strided(grad + place, lanes, weights);
            PMETA_UNROLL
            for (int32_t t = 0; t < taps; t++) {
                float32x4_t d = sums.of[c][t];
                if (gamma_bw != NULL) {
                    d = vmulq_f32(pmeta_gather(pmeta_strided(gamma_bw, lanes, 1), 0), d);
                }
                pmeta_scatter(total, t, vaddq_f32(pmeta_gather(total, t), d));
            }
        }
    }
}
