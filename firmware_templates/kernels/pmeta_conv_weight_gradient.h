/* SPDX-License-Identifier: Apache-2.0
 * Conv, gradient of its weights: blocks of some filters times some channels times the taps of a kernel row, whose sums
 * over the outputs stay in registers. Each sum takes the outputs row by row. Included by pmeta_conv.h. */
#include "pmeta_numerics.h"

#include <stddef.h>

/* Of the outputs of a row: up to `left`, and from `right` on, a tap can lie outside the input. From `left` up to `rest`
 * they are taken in blocks. */
typedef struct pmeta_conv_columns {
    int32_t left, rest, right;
} pmeta_conv_columns;

/* For `taps` taps from column j of the kernel on. */
PMETA_INLINE pmeta_conv_columns pmeta_conv_columns_of(const pmeta_conv_shape *s, int32_t j, int32_t taps)
{
    const int32_t first = j * s->dilation_w - s->pad_left; /* column of the first tap at the first output */
    const int32_t last = first + (taps - 1) * s->dilation_w;
    const int32_t left = pmeta_min(s->out_w, pmeta_divided_up(pmeta_max(0, -first), s->stride_w));
    const int32_t inside = (s->in_w > last) ? (s->in_w - 1 - last) / s->stride_w + 1 : 0;
    const int32_t right = pmeta_max(left, pmeta_min(s->out_w, inside));
    const pmeta_conv_columns columns = {left, left + (right - left) / PMETA_BLOCK_OUTPUTS * PMETA_BLOCK_OUTPUTS, right};
    return columns;
}

/* The rows of outputs whose tap in one row of the kernel lies inside the input: from `begin` up to `end`; the first
 * reads row `input`. */
typedef struct pmeta_conv_rows {
    int32_t begin, end, input;
} pmeta_conv_rows;

/* For row i of the kernel. */
PMETA_INLINE pmeta_conv_rows pmeta_conv_rows_of(const pmeta_conv_shape *s, int32_t i)
{
    const int32_t first = i * s->dilation_h - s->pad_top;
    const int32_t begin = (first < 0) ? pmeta_divided_up(-first, s->stride_h) : 0;
    const int32_t end = (s->in_h > first) ? pmeta_min(s->out_h, (s->in_h - 1 - first) / s->stride_h + 1) : 0;
    const pmeta_conv_rows rows = {begin, end, begin * s->stride_h + first};
    return rows;
}

#if defined(PMETA_HELIUM)
#include "pmeta_conv_weight_gradient_helium.h"
#else
/* Channels of a block, at most: so many that sums are left for several filters. */
PMETA_INLINE int32_t pmeta_conv_weight_channels(int32_t taps)
{
    return (taps > 4) ? 1 : (taps == 1) ? 4 : 2;
}

/* Sums of a block: by filter, channel and tap. */
typedef struct pmeta_conv_sums {
    float of[PMETA_BLOCK_HEIGHT][PMETA_BLOCK_HEIGHT][PMETA_BLOCK_WIDTH];
} pmeta_conv_sums;

/* Adds `outputs` outputs of a row, from column ow on, to the sums of `taps` taps from (i, j) on. x and gy are the rows
 * of each channel and filter. Those at the ends of a row can have taps outside the input, `clipped`. */
PMETA_INLINE void pmeta_conv_weight_outputs(const pmeta_conv_shape *s, int32_t filters, int32_t channels, int32_t j,
                                            int32_t taps, int32_t ow, int32_t outputs, int clipped,
                                            const float *const *x, const float *const *gy, pmeta_conv_sums *sums)
{
    PMETA_UNROLL
    for (int32_t p = 0; p < outputs; p++) {
        PMETA_UNROLL
        for (int32_t f = 0; f < filters; f++) {
            const float g = gy[f][ow + p];
            PMETA_UNROLL
            for (int32_t c = 0; c < channels; c++) {
                PMETA_UNROLL
                for (int32_t t = 0; t < taps; t++) {
                    const int32_t column = (ow + p) * s->stride_w + (j + t) * s->dilation_w - s->pad_left;
                    if (!clipped || (column >= 0 && column < s->in_w)) {
                        sums->of[f][c][t] += g * x[c][column];
                    }
                }
            }
        }
    }
}

/* Adds one row of outputs. */
PMETA_INLINE void pmeta_conv_weight_row(const pmeta_conv_shape *s, int32_t filters, int32_t channels, int32_t j,
                                        int32_t taps, const float *const *x, const float *const *gy,
                                        pmeta_conv_sums *sums)
{
    const pmeta_conv_columns columns = pmeta_conv_columns_of(s, j, taps);
    PMETA_UNROLL
    for (int32_t ow = 0; ow < columns.left; ow++) {
        pmeta_conv_weight_outputs(s, filters, channels, j, taps, ow, 1, 1, x, gy, sums);
    }
    for (int32_t ow = columns.left; ow < columns.rest; ow += PMETA_BLOCK_OUTPUTS) {
        pmeta_conv_weight_outputs(s, filters, channels, j, taps, ow, PMETA_BLOCK_OUTPUTS, 0, x, gy, sums);
    }
    pmeta_conv_weight_outputs(s, filters, channels, j, taps, columns.rest, columns.right - columns.rest, 0, x, gy,
                              sums);
    PMETA_UNROLL
    for (int32_t ow = columns.right; ow < s->out_w; ow++) {
        pmeta_conv_weight_outputs(s, filters, channels, j, taps, ow, 1, 1, x, gy, sums);
    }
}

/* Adds the gradients of `taps` taps from (i, j) on; filters and channels are the block's size. gy, gamma_bw and grad
 * are those of the group. */
PMETA_INLINE void pmeta_conv_weight_taps(const pmeta_conv_shape *s, const pmeta_conv_pairs *pairs, int32_t filters,
                                         int32_t channels, int32_t i, int32_t j, int32_t taps, const float *gy,
                                         const float *gamma_bw, float *grad)
{
    const pmeta_conv_rows rows = pmeta_conv_rows_of(s, i);
    pmeta_conv_sums sums;
    const float *x[PMETA_BLOCK_HEIGHT];
    const float *g[PMETA_BLOCK_HEIGHT];
    PMETA_UNROLL
    for (int32_t c = 0; c < channels; c++) {
        x[c] = pairs->x[pmeta_conv_filled(c, pairs->channels)] + rows.input * s->in_w;
    }
    PMETA_UNROLL
    for (int32_t f = 0; f < filters; f++) {
        g[f] = gy + (pairs->filter[pmeta_conv_filled(f, pairs->filters)] * s->out_h + rows.begin) * s->out_w;
        PMETA_UNROLL
        for (int32_t c = 0; c < channels; c++) {
            PMETA_UNROLL
            for (int32_t t = 0; t < taps; t++) {
                sums.of[f][c][t] = 0.0f;
            }
        }
    }
    for (int32_t oh = rows.begin; oh < rows.end; oh++) {
        pmeta_conv_weight_row(s, filters, channels, j, taps, x, g, &sums);
        PMETA_UNROLL
        for (int32_t c = 0; c < channels; c++) {
            x[c] += s->stride_h * s->in_w;
        }
        PMETA_UNROLL
        for (int32_t f = 0; f < filters; f++) {
            g[f] += s->out_w;
        }
    }
    PMETA_UNROLL
    for (int32_t f = 0; f < filters; f++) {
        PMETA_UNROLL
        for (int32_t c = 0; c < channels; c++) {
            if (f < pairs->filters && c < pairs->channels) {
                const int32_t pair = pairs->filter[f] * (s->channels / s->groups) + pairs->channel[c];
                float *tap = grad + (pair * s->kernel_h + i) * s->kernel_w + j;
                PMETA_UNROLL
                for (int32_t t = 0; t < taps; t++) {
                    const float d = sums.of[f][c][t];
                    tap[t] += (gamma_bw != NULL) ? gamma_bw[pairs->filter[f]] * d : d;
                }
            }
        }
    }
}

#endif

/* Adds the gradients of all taps. */
PMETA_INLINE void pmeta_conv_weight_pairs(const pmeta_conv_shape *s, const pmeta_conv_pairs *pairs, int32_t filters,
                                          int32_t channels, const float *gy, const float *gamma_bw, float *grad)
{
#if PMETA_VECTOR > 1
    if (pmeta_conv_has_filters(s)) {
        pmeta_conv_filters_pairs(s, pairs, gy, gamma_bw, grad);
        return;
    }
#endif
    const int32_t taps = pmeta_part(s->kernel_w, PMETA_BLOCK_WIDTH);
    const int32_t rest = s->kernel_w % taps;
    for (int32_t i = 0; i < s->kernel_h; i++) {
        PMETA_UNROLL
        for (int32_t j = 0; j < s->kernel_w - rest; j += taps) {
            pmeta_conv_weight_taps(s, pairs, filters, channels, i, j, taps, gy, gamma_bw, grad);
        }
        if (rest > 0) {
            pmeta_conv_weight_taps(s, pairs, filters, channels, i, s->kernel_w - rest, rest, gy, gamma_bw, grad);
        }
    }
}

/* Adds the gradients of the channels in `pairs` for all filters of their group but those that attention skips. */
PMETA_INLINE void pmeta_conv_weight_filters(const pmeta_conv_shape *s, pmeta_conv_pairs *pairs, int32_t filters,
                                            int32_t channels, const float *gy, const float *gamma_bw, float *grad)
{
    const int32_t all = s->filters / s->groups;
    pairs->filters = 0;
    for (int32_t f = 0; f < all; f++) {
        if (gamma_bw == NULL || gamma_bw[f] != 0.0f) {
            pairs->filter[pairs->filters++] = f;
        }
        if (pairs->filters == filters || (f == all - 1 && pairs->filters > 0)) {
            pmeta_conv_weight_pairs(s, pairs, filters, channels, gy, gamma_bw, grad);
            pairs->filters = 0;
        }
    }
}

PMETA_INLINE void pmeta_conv_weight_gradient(const pmeta_conv_shape *s, const uint16_t *kept, int32_t type,
                                             const void *x, float *decoded, const float *gy, const float *gamma_bw,
                                             float *grad)
{
    const int32_t rows = (kept != NULL) ? kept[0] : s->channels;
    const int32_t channels = s->channels / s->groups;
    const int32_t filters = s->filters / s->groups;
    const int32_t taps = pmeta_part(s->kernel_w, PMETA_BLOCK_WIDTH);
    const int32_t most = (type == PMETA_FLOAT32) ? pmeta_conv_weight_channels(taps) : 1; /* decoded one by one */
    int32_t block = pmeta_min(channels, pmeta_min(PMETA_BLOCK_HEIGHT, most));
    int32_t block_filters = pmeta_min(filters, pmeta_min(PMETA_BLOCK_HEIGHT, PMETA_BLOCK / (taps * block)));
#if PMETA_VECTOR > 1
    if (pmeta_conv_has_filters(s)) {
        block = (type == PMETA_FLOAT32) ? pmeta_conv_filters_most(s) : 1;
        block_filters = PMETA_VECTOR;
    }
#endif
    pmeta_conv_pairs pairs;
    pairs.channels = 0;
    for (int32_t n = 0; n < rows; n++) {
        const int32_t c = (kept != NULL) ? kept[1 + n] : n;
        const int32_t group = c / channels;
        const int32_t next = (n + 1 == rows) ? s->channels : (kept != NULL) ? kept[2 + n] : n + 1;
        pairs.channel[pairs.channels] = c % channels;
        pairs.x[pairs.channels] = pmeta_read_row(type, s->in_h * s->in_w, x, n, decoded);
        pairs.channels++;
        if (pairs.channels == block || next / channels != group) {
            const float *gamma = (gamma_bw != NULL) ? gamma_bw + group * filters : NULL;
            pmeta_conv_weight_filters(s, &pairs, block_filters, block, gy + group * filters * s->out_h * s->out_w,
                                      gamma, grad + group * filters * channels * s->kernel_h * s->kernel_w);
            pairs.channels = 0;
        }
    }
}
