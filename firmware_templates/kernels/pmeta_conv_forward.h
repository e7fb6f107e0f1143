/* SPDX-License-Identifier: Apache-2.0
 * Conv, forward: blocks of some filters times some outputs of a row, whose sums stay in registers. Each sum takes its
 * taps in the order of docs/numerics.md: channel, kernel row, kernel column. Included by pmeta_conv.h. */
#include "pmeta_numerics.h"

#include <stddef.h>

#define PMETA_CONV_COLUMNS 24 /* of a row that a block reads, decoded */

/* How many rows of sums of that width a block has, of `count`. */
PMETA_INLINE int32_t pmeta_conv_block_height(int32_t count, int32_t width)
{
    return pmeta_part(count, pmeta_min(PMETA_BLOCK_HEIGHT, PMETA_BLOCK / width));
}

/* Decodes the columns that one kernel row of a block reads, once, and returns 1; returns 0 where there is nothing to
 * decode, or the block is very wide. */
PMETA_INLINE int pmeta_conv_decode(const pmeta_conv_shape *s, const pmeta_conv_input *x, int32_t c, int32_t index,
                                   int32_t outputs, int32_t column, int clipped, float *columns)
{
    const int32_t span = (outputs - 1) * s->stride_w + (s->kernel_w - 1) * s->dilation_w + 1;
    const int decoded = x->type != PMETA_FLOAT32 && span <= PMETA_CONV_COLUMNS;
    const int32_t ahead = decoded ? span : 0;
    PMETA_UNROLL
    for (int32_t q = 0; q < ahead; q++) {
        if (!clipped || (column + q >= 0 && column + q < s->in_w)) {
            columns[q] = pmeta_conv_read(x, c, index + q);
        }
    }
    return decoded;
}

#if defined(PMETA_HELIUM)
#include "pmeta_conv_forward_helium.h"
#else
/* Adds one kernel row, w, to the sums of a block; `index` is where its first column lies in the map, `column` in the
 * row. */
PMETA_INLINE void pmeta_conv_forward_taps(const pmeta_conv_shape *s, const pmeta_conv_input *x, int32_t c,
                                          int32_t index, int32_t filters, int32_t outputs, int32_t column, int clipped,
                                          const float *w, int32_t weights, float sum[][PMETA_BLOCK_WIDTH])
{
    float columns[PMETA_CONV_COLUMNS];
    const int decoded = pmeta_conv_decode(s, x, c, index, outputs, column, clipped, columns);
    PMETA_UNROLL
    for (int32_t j = 0; j < s->kernel_w; j++) {
        PMETA_UNROLL
        for (int32_t p = 0; p < outputs; p++) {
            const int32_t q = p * s->stride_w + j * s->dilation_w;
            if (!clipped || (column + q >= 0 && column + q < s->in_w)) {
                const float value = decoded ? columns[q] : pmeta_conv_read(x, c, index + q);
                PMETA_UNROLL
                for (int32_t f = 0; f < filters; f++) {
                    sum[f][p] += w[f * weights + j] * value;
                }
            }
        }
    }
}

/* A block: `filters` from the first of w, `outputs` from column ow of row oh on. The first and last blocks of a row can
 * meet taps outside the input, `clipped`. */
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
    float sum[PMETA_BLOCK_HEIGHT][PMETA_BLOCK_WIDTH];
    PMETA_UNROLL
    for (int32_t f = 0; f < filters; f++) {
        PMETA_UNROLL
        for (int32_t p = 0; p < outputs; p++) {
            sum[f][p] = (bias != NULL) ? bias[f] : 0.0f;
        }
    }
    for (int32_t c = 0; c < channels; c++) {
        int32_t row = ((first_channel + c) * s->in_h + first_row + begin * s->dilation_h) * s->in_w;
        for (int32_t i = begin; i < end; i++) {
            pmeta_conv_forward_taps(s, x, first_channel + c, row + first_column, filters, outputs,
                                    clipped ? first_column : 0, clipped, w + c * taps + i * s->kernel_w,
                                    channels * taps, sum);
            row += s->dilation_h * s->in_w;
        }
    }
    PMETA_UNROLL
    for (int32_t f = 0; f < filters; f++) {
        PMETA_UNROLL
        for (int32_t p = 0; p < outputs; p++) {
            y[(f * s->out_h + oh) * s->out_w + ow + p] = sum[f][p];
        }
    }
}

#endif

/* The blocks of `filters` filters in one row of outputs. */
PMETA_INLINE void pmeta_conv_forward_row(const pmeta_conv_shape *s, const pmeta_conv_input *x, int32_t first_channel,
                                         int32_t filters, int32_t oh, const float *w, const float *bias, float *y)
{
    const int32_t reach = (s->kernel_w - 1) * s->dilation_w - s->pad_left; /* of the last tap */
    const int32_t width = pmeta_part(s->out_w, PMETA_BLOCK_WIDTH);
    const int32_t blocks = s->out_w / width;
    const int32_t left = pmeta_min(blocks, pmeta_divided_up(s->pad_left, s->stride_w * width)); /* that are clipped */
    const int32_t inside = pmeta_max(0, s->in_w - 1 - reach) / s->stride_w + (s->in_w > reach); /* outputs */
    const int32_t right = pmeta_max(left, pmeta_min(blocks, inside / width));
    PMETA_UNROLL
    for (int32_t b = 0; b < left; b++) {
        pmeta_conv_forward_block(s, x, first_channel, filters, oh, b * width, width, 1, w, bias, y);
    }
    for (int32_t b = left; b < right; b++) {
        pmeta_conv_forward_block(s, x, first_channel, filters, oh, b * width, width, 0, w, bias, y);
    }
    PMETA_UNROLL
    for (int32_t b = right; b < blocks; b++) {
        pmeta_conv_forward_block(s, x, first_channel, filters, oh, b * width, width, 1, w, bias, y);
    }
    if (s->out_w % width != 0) {
        pmeta_conv_forward_block(s, x, first_channel, filters, oh, blocks * width, s->out_w % width, 1, w, bias, y);
    }
}

PMETA_INLINE void pmeta_conv_forward_of(const pmeta_conv_shape *s, const pmeta_conv_input *x, const float *w,
                                        const float *bias, float *y)
{
    const int32_t filters = s->filters / s->groups;
    const int32_t weights = s->channels / s->groups * s->kernel_h * s->kernel_w; /* of a filter */
    const int32_t block = pmeta_conv_block_height(filters, pmeta_part(s->out_w, PMETA_BLOCK_WIDTH));
    for (int32_t group = 0; group < s->groups; group++) {
        const int32_t channel = group * (s->channels / s->groups);
        for (int32_t n = 0; n < filters / block; n++) {
            for (int32_t oh = 0; oh < s->out_h; oh++) {
                pmeta_conv_forward_row(s, x, channel, block, oh, w, bias, y);
            }
            w += block * weights;
            y += block * s->out_h * s->out_w;
            bias = (bias != NULL) ? bias + block : NULL;
        }
        for (int32_t oh = 0; filters % block != 0 && oh < s->out_h; oh++) {
            pmeta_conv_forward_row(s, x, channel, filters % block, oh, w, bias, y);
        }
        w += filters % block * weights;
        y += filters % block * s->out_h * s->out_w;
        bias = (bias != NULL) ? bias + filters % block : NULL;
    }
}

PMETA_INLINE void pmeta_conv_forward(const pmeta_conv_shape *s, const float *x, const float *w, const float *bias,
                                     float *y)
{
    const pmeta_conv_input input = {PMETA_FLOAT32, x, NULL, NULL};
#if PMETA_VECTOR > 1
    const pmeta_conv_map map = pmeta_conv_forward_map(s);
    if (pmeta_conv_by_pixels(s, &map, x, w, bias, 0, y)) {
        return;
    }
#endif
    pmeta_conv_forward_of(s, &input, w, bias, y);
}

PMETA_INLINE void pmeta_conv_forward_uint8(const pmeta_conv_shape *s, const uint8_t *sample, const float *scale,
                                           const float *offset, const float *w, const float *bias, float *y)
{
    const pmeta_conv_input input = {PMETA_UINT8, sample, scale, offset};
    pmeta_conv_forward_of(s, &input, w, bias, y);
}

PMETA_INLINE void pmeta_conv_forward_float16(const pmeta_conv_shape *s, const pmeta_float16 *x, const float *w,
                                             const float *bias, float *y)
{
    const pmeta_conv_input input = {PMETA_FLOAT16, x, NULL, NULL};
    pmeta_conv_forward_of(s, &input, w, bias, y);
}
