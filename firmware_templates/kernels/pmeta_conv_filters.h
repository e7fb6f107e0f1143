/* SPDX-License-Identifier: Apache-2.0
 * Conv, gradient of its weights, by vectors of filters. Included by pmeta_conv.h.
 *
 * With a lane per filter each sum takes the outputs row by row, as it must. Some outputs at a time, those of a vector's
 * filters are laid side by side and multiplied with what all taps read of some channels. */
#include "pmeta_vector.h"

#include <stddef.h>

#define PMETA_FILTER_OUTPUTS 64 /* that are laid side by side */
#define PMETA_FILTER_SUMS    72 /* vectors that stay in memory meanwhile */
#define PMETA_FILTER_BLOCK   12 /* vectors that stay in registers */

/* Some outputs of a vector's filters: rows of the map, or a part of one row. */
typedef struct pmeta_conv_outputs {
    int32_t row, column;   /* of the first */
    int32_t rows, columns; /* how many */
    pmeta_floats g[PMETA_FILTER_OUTPUTS];
} pmeta_conv_outputs;

/* Sums of some channels' gradients: (channels, kernel_h, kernel_w). */
typedef struct pmeta_conv_filter_sums {
    pmeta_floats of[PMETA_FILTER_SUMS];
} pmeta_conv_filter_sums;

/* Whether a layer's gradients go by vectors of filters: not where most lanes would stay empty. */
PMETA_INLINE int pmeta_conv_has_filters(const pmeta_conv_shape *s)
{
    return s->filters / s->groups >= PMETA_VECTOR / 2 && s->kernel_w <= PMETA_FILTER_BLOCK &&
           s->kernel_h * s->kernel_w <= PMETA_FILTER_SUMS;
}

/* How many channels have their sums in registers at a time. */
PMETA_INLINE int32_t pmeta_conv_filters_channels(const pmeta_conv_shape *s)
{
    const int32_t most = pmeta_min(s->channels / s->groups, PMETA_FILTER_SUMS / (s->kernel_h * s->kernel_w));
    return pmeta_min(PMETA_CONV_PAIRS, pmeta_min(most, PMETA_FILTER_BLOCK / s->kernel_w));
}

/* How many channels have their sums in memory at a time: a multiple of the above. */
PMETA_INLINE int32_t pmeta_conv_filters_most(const pmeta_conv_shape *s)
{
    const int32_t most = pmeta_min(s->channels / s->groups, PMETA_FILTER_SUMS / (s->kernel_h * s->kernel_w));
    const int32_t channels = pmeta_conv_filters_channels(s);
    return pmeta_min(PMETA_CONV_PAIRS, most) / channels * channels;
}

/* Lays `count` outputs from `position` on side by side. Lanes beyond the last filter repeat it. */
PMETA_INLINE void pmeta_conv_lay_out(const pmeta_conv_shape *s, const pmeta_conv_pairs *pairs, int32_t position,
                                     int32_t count, const float *gy, pmeta_floats *g)
{
    const float *row[PMETA_VECTOR];
    PMETA_UNROLL
    for (int32_t lane = 0; lane < PMETA_VECTOR; lane++) {
        const int32_t filter = pairs->filter[pmeta_conv_filled(lane, pairs->filters)];
        row[lane] = gy + filter * s->out_h * s->out_w + position;
    }
    int32_t p = 0;
    for (; p + PMETA_VECTOR <= count; p += PMETA_VECTOR) {
        pmeta_floats v[PMETA_VECTOR];
        PMETA_UNROLL
        for (int32_t lane = 0; lane < PMETA_VECTOR; lane++) {
            v[lane] = pmeta_vector_load(row[lane] + p);
        }
        pmeta_vector_transpose(v);
        PMETA_UNROLL
        for (int32_t n = 0; n < PMETA_VECTOR; n++) {
            g[p + n] = v[n];
        }
    }
    for (; p < count; p++) {
        PMETA_UNROLL
        for (int32_t lane = 0; lane < PMETA_VECTOR; lane++) {
            g[p][lane] = row[lane][p];
        }
    }
}

/* Adds the outputs of a row from column ow to `end`, g, to the sums of a kernel row and `channels` channels, whose rows
 * x holds. Those at the ends of a row can have taps outside the input, `clipped`. */
PMETA_INLINE void pmeta_conv_filters_outputs(const pmeta_conv_shape *s, int32_t channels, int clipped, int32_t ow,
                                             int32_t end, const pmeta_floats *g, const float *const *x,
                                             pmeta_floats *sum)
{
    for (; ow < end; ow++) {
        const pmeta_floats v = *g++;
        PMETA_UNROLL
        for (int32_t j = 0; j < s->kernel_w; j++) {
            const int32_t column = ow * s->stride_w + j * s->dilation_w - s->pad_left;
            if (!clipped || (column >= 0 && column < s->in_w)) {
                PMETA_UNROLL
                for (int32_t c = 0; c < channels; c++) {
                    sum[c * s->kernel_w + j] += v * x[c][column];
                }
            }
        }
    }
}

/* Adds one row of outputs, g, which begins at column `begin`, to the same sums. */
PMETA_INLINE void pmeta_conv_filters_row(const pmeta_conv_shape *s, int32_t channels, int32_t begin, int32_t end,
                                         const pmeta_floats *g, const float *const *x, pmeta_floats *sum)
{
    const int32_t reach = (s->kernel_w - 1) * s->dilation_w - s->pad_left; /* of the last tap */
    const int32_t inside = (s->in_w > reach) ? (s->in_w - 1 - reach) / s->stride_w + 1 : 0;
    const int32_t left = pmeta_max(begin, pmeta_min(end, pmeta_divided_up(s->pad_left, s->stride_w)));
    const int32_t right = pmeta_max(left, pmeta_min(end, inside));
    pmeta_conv_filters_outputs(s, channels, 1, begin, left, g, x, sum);
    pmeta_conv_filters_outputs(s, channels, 0, left, right, g + (left - begin), x, sum);
    pmeta_conv_filters_outputs(s, channels, 1, right, end, g + (right - begin), x, sum);
}

/* Adds the outputs to the sums of kernel row i and `channels` channels from c on. */
PMETA_INLINE void pmeta_conv_filters_taps(const pmeta_conv_shape *s, const pmeta_conv_pairs *pairs,
                                          const pmeta_conv_outputs *outputs, int32_t c, int32_t channels, int32_t i,
                                          pmeta_conv_filter_sums *sums)
{
    pmeta_floats sum[PMETA_FILTER_BLOCK];
    PMETA_UNROLL
    for (int32_t n = 0; n < channels * s->kernel_w; n++) {
        sum[n] = sums->of[((c + n / s->kernel_w) * s->kernel_h + i) * s->kernel_w + n % s->kernel_w];
    }
    for (int32_t r = 0; r < outputs->rows; r++) {
        const int32_t row = (outputs->row + r) * s->stride_h + i * s->dilation_h - s->pad_top;
        if (row >= 0 && row < s->in_h) {
            const float *x[PMETA_FILTER_BLOCK];
            PMETA_UNROLL
            for (int32_t n = 0; n < channels; n++) {
                x[n] = pairs->x[pmeta_conv_filled(c + n, pairs->channels)] + row * s->in_w;
            }
            pmeta_conv_filters_row(s, channels, outputs->column, outputs->column + outputs->columns,
                                   outputs->g + r * outputs->columns, x, sum);
        }
    }
    PMETA_UNROLL
    for (int32_t n = 0; n < channels * s->kernel_w; n++) {
        sums->of[((c + n / s->kernel_w) * s->kernel_h + i) * s->kernel_w + n % s->kernel_w] = sum[n];
    }
}

/* Adds all sums to grad. gamma_bw and grad are those of the group. */
PMETA_INLINE void pmeta_conv_filters_add(const pmeta_conv_shape *s, const pmeta_conv_pairs *pairs,
                                         const pmeta_conv_filter_sums *sums, const float *gamma_bw, float *grad)
{
    const int32_t taps = s->kernel_h * s->kernel_w;
    for (int32_t n = 0; n < pairs->filters; n++) {
        const int32_t f = pairs->filter[n];
        const float *sum = (const float *)sums->of + n;
        for (int32_t c = 0; c < pairs->channels; c++) {
            float *tap = grad + (f * (s->channels / s->groups) + pairs->channel[c]) * taps;
            PMETA_UNROLL_SOME
            for (int32_t t = 0; t < taps; t++) {
                const float d = sum[(c * taps + t) * PMETA_VECTOR];
                tap[t] += (gamma_bw != NULL) ? gamma_bw[f] * d : d;
            }
        }
    }
}

/* Adds the gradients of a vector of filters or less, and of as many channels as have sums. gy, gamma_bw and grad are
 * those of the group. */
PMETA_INLINE void pmeta_conv_filters_pairs(const pmeta_conv_shape *s, const pmeta_conv_pairs *pairs, const float *gy,
                                           const float *gamma_bw, float *grad)
{
    const int32_t channels = pmeta_conv_filters_channels(s);
    const int32_t columns = pmeta_min(s->out_w, PMETA_FILTER_OUTPUTS);
    const int32_t rows = pmeta_min(s->out_h, PMETA_FILTER_OUTPUTS / columns);
    pmeta_conv_outputs outputs;
    pmeta_conv_filter_sums sums;
    for (int32_t n = 0; n < PMETA_FILTER_SUMS; n++) {
        sums.of[n] = (pmeta_floats){0};
    }
    for (outputs.row = 0; outputs.row < s->out_h; outputs.row += rows) {
        for (outputs.column = 0; outputs.column < s->out_w; outputs.column += columns) {
            outputs.rows = pmeta_min(rows, s->out_h - outputs.row);
            outputs.columns = pmeta_min(columns, s->out_w - outputs.column);
            pmeta_conv_lay_out(s, pairs, outputs.row * s->out_w + outputs.column, outputs.rows * outputs.columns, gy,
                               outputs.g);
            for (int32_t c = 0; c < pairs->channels; c += channels) {
                for (int32_t i = 0; i < s->kernel_h; i++) {
                    pmeta_conv_filters_taps(s, pairs, &outputs, c, channels, i, &sums);
                }
            }
        }
    }
    pmeta_conv_filters_add(s, pairs, &sums, gamma_bw, grad);
}
