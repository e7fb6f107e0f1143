/* SPDX-License-Identifier: Apache-2.0
 * Conv, gradient of its input: blocks of some channels times some inputs of a row, whose sums stay in registers. Each
 * sum takes filter, kernel row, kernel column in order. Included by pmeta_conv.h.
 *
 * Input (row, column) feeds output (oh, ow) through tap (i, j) where oh * stride_h = row + pad_top - i * dilation_h,
 * and likewise for columns. With a stride, neighbours have other taps: a block holds every stride_w-th input of a row.
 */
#include "pmeta_numerics.h"

/* The kernel rows that reach a row of inputs: `count` of them, from `first` on; the first reaches row `output`. */
typedef struct pmeta_conv_reach {
    int32_t first, count, output;
} pmeta_conv_reach;

/* From one of these kernel rows to the next. */
PMETA_INLINE int32_t pmeta_conv_row_step(const pmeta_conv_shape *s)
{
    int32_t step = 1;
    while (step * s->dilation_h % s->stride_h != 0) {
        step++;
    }
    return step;
}

PMETA_INLINE pmeta_conv_reach pmeta_conv_reach_of(const pmeta_conv_shape *s, int32_t row)
{
    const int32_t step = pmeta_conv_row_step(s);
    const int32_t top = row + s->pad_top;
    pmeta_conv_reach reach = {0, 0, 0};
    while (reach.first < step && (top - reach.first * s->dilation_h) % s->stride_h != 0) {
        reach.first++;
    }
    if (reach.first == step) {
        return reach; /* the stride passes over this row */
    }
    while (top - reach.first * s->dilation_h > (s->out_h - 1) * s->stride_h) {
        reach.first += step;
    }
    for (int32_t i = reach.first; i < s->kernel_h && i * s->dilation_h <= top; i += step) {
        reach.count++;
    }
    reach.output = (top - reach.first * s->dilation_h) / s->stride_h;
    return reach;
}

#if defined(PMETA_HELIUM)
#include "pmeta_conv_input_gradient_helium.h"
#else
/* A block: `channels` from the first of w and gx, and `inputs` of the row: columns phase + n * stride_w, n from `n` on.
 * Those at the ends of a row can have taps whose outputs lie outside, `clipped`. */
PMETA_INLINE void pmeta_conv_input_block(const pmeta_conv_shape *s, int32_t channels, int32_t row,
                                         pmeta_conv_reach reach, int32_t phase, int32_t n, int32_t inputs, int clipped,
                                         int32_t first, const float *w, const float *gy, float *gx)
{
    const int32_t taps = s->kernel_h * s->kernel_w;
    const int32_t step = pmeta_conv_row_step(s);
    float sum[PMETA_BLOCK_HEIGHT][PMETA_BLOCK_WIDTH];
    gx += row * s->in_w + phase + n * s->stride_w;
    PMETA_UNROLL
    for (int32_t c = 0; c < channels; c++) {
        PMETA_UNROLL
        for (int32_t p = 0; p < inputs; p++) {
            sum[c][p] = first ? 0.0f : gx[c * s->in_h * s->in_w + p * s->stride_w];
        }
    }
    const float *kernel = w + reach.first * s->kernel_w;
    const float *outputs = gy + reach.output * s->out_w + n;
    for (int32_t f = 0; f < s->filters / s->groups; f++) {
        const float *tap = kernel;
        const float *g = outputs;
        for (int32_t i = 0; i < reach.count; i++) {
            PMETA_UNROLL
            for (int32_t j = 0; j < s->kernel_w; j++) {
                const int32_t distance = phase + s->pad_left - j * s->dilation_w;
                const int32_t ow = distance / s->stride_w;
                PMETA_UNROLL
                for (int32_t c = 0; c < channels; c++) {
                    PMETA_UNROLL
                    for (int32_t p = 0; p < inputs; p++) {
                        const int inside = !clipped || (n + ow + p >= 0 && n + ow + p < s->out_w);
                        if (distance % s->stride_w == 0 && inside) {
                            sum[c][p] += tap[c * taps + j] * g[ow + p];
                        }
                    }
                }
            }
            tap += step * s->kernel_w;
            g -= step * s->dilation_h / s->stride_h * s->out_w;
        }
        kernel += s->channels / s->groups * taps;
        outputs += s->out_h * s->out_w;
    }
    PMETA_UNROLL
    for (int32_t c = 0; c < channels; c++) {
        PMETA_UNROLL
        for (int32_t p = 0; p < inputs; p++) {
            gx[c * s->in_h * s->in_w + p * s->stride_w] = sum[c][p];
        }
    }
}

#endif

/* Columns phase, phase + stride_w, ... of one row, for `channels` channels. */
PMETA_INLINE void pmeta_conv_input_phase(const pmeta_conv_shape *s, int32_t channels, int32_t row,
                                         pmeta_conv_reach reach, int32_t phase, int32_t first, const float *w,
                                         const float *gy, float *gx)
{
    const int32_t inputs = (s->in_w - phase + s->stride_w - 1) / s->stride_w;
    const int32_t width = pmeta_part(inputs, PMETA_BLOCK_WIDTH);
    const int32_t blocks = inputs / width;
    const int32_t before = (s->kernel_w - 1) * s->dilation_w - s->pad_left - phase;
    const int32_t left = pmeta_min(blocks, pmeta_divided_up(pmeta_max(0, before), s->stride_w * width));
    const int32_t inside = pmeta_max(0, s->out_w - (phase + s->pad_left) / s->stride_w);
    const int32_t right = pmeta_max(left, pmeta_min(blocks, inside / width));
    const int32_t rest = blocks * width;
    PMETA_UNROLL
    for (int32_t b = 0; b < left; b++) {
        pmeta_conv_input_block(s, channels, row, reach, phase, b * width, width, 1, first, w, gy, gx);
    }
    for (int32_t b = left; b < right; b++) {
        pmeta_conv_input_block(s, channels, row, reach, phase, b * width, width, 0, first, w, gy, gx);
    }
    PMETA_UNROLL
    for (int32_t b = right; b < blocks; b++) {
        pmeta_conv_input_block(s, channels, row, reach, phase, b * width, width, 1, first, w, gy, gx);
    }
    if (inputs % width != 0) {
        pmeta_conv_input_block(s, channels, row, reach, phase, rest, inputs % width, 1, first, w, gy, gx);
    }
}

/* `channels` channels. */
PMETA_INLINE void pmeta_conv_input_rows(const pmeta_conv_shape *s, int32_t channels, int32_t first, const float *w,
                                        const float *gy, float *gx)
{
    for (int32_t row = 0; row < s->in_h; row++) {
        const pmeta_conv_reach reach = pmeta_conv_reach_of(s, row);
        PMETA_UNROLL
        for (int32_t phase = 0; phase < pmeta_min(s->stride_w, s->in_w); phase++) {
            pmeta_conv_input_phase(s, channels, row, reach, phase, first, w, gy, gx);
        }
    }
}

PMETA_INLINE void pmeta_conv_input_gradient(const pmeta_conv_shape *s, int32_t first, const float *w, const float *gy,
                                            float *gx)
{
    const int32_t channels = s->channels / s->groups;
    const int32_t filters = s->filters / s->groups;
    const int32_t taps = s->kernel_h * s->kernel_w;
    const int32_t width = pmeta_part((s->in_w + s->stride_w - 1) / s->stride_w, PMETA_BLOCK_WIDTH);
    const int32_t block = pmeta_conv_block_height(channels, width);
#if PMETA_VECTOR > 1
    const pmeta_conv_map map = pmeta_conv_backward_map(s);
    if (pmeta_conv_by_pixels(s, &map, gy, w, NULL, !first, gx)) {
        return;
    }
#endif
    for (int32_t group = 0; group < s->groups; group++) {
        for (int32_t n = 0; n < channels / block; n++) {
            pmeta_conv_input_rows(s, block, first, w, gy, gx);
            w += block * taps;
            gx += block * s->in_h * s->in_w;
        }
        if (channels % block != 0) {
            pmeta_conv_input_rows(s, channels % block, first, w, gy, gx);
            w += channels % block * taps;
            gx += channels % block * s->in_h * s->in_w;
        }
        w += (filters - 1) * channels * taps;
        gy += filters * s->out_h * s->out_w;
    }
}
