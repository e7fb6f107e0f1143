/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_conv.h"

#include "pmeta_input.h"
#include "pmeta_numerics.h"

#include <stddef.h>

/* A half-open range. */
typedef struct range {
    int32_t begin, end;
} range;

/* Outputs o in [0, outputs) whose input o * stride + first lies inside [0, inputs). */
static range outputs_inside(int32_t outputs, int32_t inputs, int32_t stride, int32_t first)
{
    range r = {0, 0};
    if (first < 0) {
        r.begin = (-first + stride - 1) / stride;
    }
    if (first < inputs) {
        r.end = (inputs - 1 - first) / stride + 1;
    }
    if (r.end > outputs) {
        r.end = outputs;
    }
    if (r.end < r.begin) {
        r.end = r.begin;
    }
    return r;
}

/* The first of the channels that filter f reads. */
static int32_t first_channel(const pmeta_conv_shape *s, int32_t f)
{
    return f / (s->filters / s->groups) * (s->channels / s->groups);
}

/* y (F, out_h, out_w) starts at the bias, or at +0. */
static void start_at_bias(const pmeta_conv_shape *s, const float *bias, float *y)
{
    const int32_t out_size = s->out_h * s->out_w;
    for (int32_t f = 0; f < s->filters; f++) {
        for (int32_t p = 0; p < out_size; p++) {
            *y++ = (bias != NULL) ? bias[f] : 0.0f;
        }
    }
}

/* Adds one tap, w * x, to every output pixel of y (out_h, out_w) that it reaches: taps are the outer loop, so that the
 * inner one runs along a row; each pixel still sums its taps in order. */
static void add_tap(const pmeta_conv_shape *s, const float *x, float w, int32_t i, int32_t j, float *y)
{
    const int32_t first_row = i * s->dilation_h - s->pad_top;
    const int32_t first_column = j * s->dilation_w - s->pad_left;
    const range rows = outputs_inside(s->out_h, s->in_h, s->stride_h, first_row);
    const range columns = outputs_inside(s->out_w, s->in_w, s->stride_w, first_column);
    for (int32_t oh = rows.begin; oh < rows.end; oh++) {
        const float *in = x + (oh * s->stride_h + first_row) * s->in_w;
        float *out = y + oh * s->out_w;
        for (int32_t ow = columns.begin; ow < columns.end; ow++) {
            out[ow] += w * in[ow * s->stride_w + first_column];
        }
    }
}

void pmeta_conv_forward(const pmeta_conv_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    const int32_t in_size = s->in_h * s->in_w;
    const int32_t out_size = s->out_h * s->out_w;
    start_at_bias(s, bias, y);
    for (int32_t f = 0; f < s->filters; f++) {
        const float *in = x + first_channel(s, f) * in_size;
        for (int32_t c = 0; c < s->channels / s->groups; c++) {
            for (int32_t i = 0; i < s->kernel_h; i++) {
                for (int32_t j = 0; j < s->kernel_w; j++) {
                    add_tap(s, in + c * in_size, *w++, i, j, y);
                }
            }
        }
        y += out_size;
    }
}

/* Adds what row r of the input, in (in_w), contributes to y (out_h, out_w) through the kernel w (kernel_h, kernel_w) of
 * one channel. Rows that come in order add each pixel's taps in order. */
static void add_row(const pmeta_conv_shape *s, const float *in, int32_t r, const float *w, float *y)
{
    for (int32_t i = 0; i < s->kernel_h; i++) {
        const int32_t row = r + s->pad_top - i * s->dilation_h;
        const int32_t oh = row / s->stride_h;
        if (row < 0 || row % s->stride_h != 0 || oh >= s->out_h) {
            continue;
        }
        for (int32_t j = 0; j < s->kernel_w; j++) {
            const int32_t first_column = j * s->dilation_w - s->pad_left;
            const range columns = outputs_inside(s->out_w, s->in_w, s->stride_w, first_column);
            for (int32_t ow = columns.begin; ow < columns.end; ow++) {
                y[oh * s->out_w + ow] += w[i * s->kernel_w + j] * in[ow * s->stride_w + first_column];
            }
        }
    }
}

/* Adds what row r of channel c contributes to y (F, out_h, out_w): to all filters that read the channel. */
static void add_row_to_filters(const pmeta_conv_shape *s, const float *row, int32_t c, int32_t r, const float *w,
                               float *y)
{
    const int32_t taps = s->kernel_h * s->kernel_w;
    const int32_t group_channels = s->channels / s->groups;
    const int32_t group_filters = s->filters / s->groups;
    const int32_t first = c / group_channels * group_filters;
    for (int32_t f = first; f < first + group_filters; f++) {
        const float *kernel = w + (f * group_channels + c % group_channels) * taps;
        add_row(s, row, r, kernel, y + f * s->out_h * s->out_w);
    }
}

void pmeta_conv_forward_uint8(const pmeta_conv_shape *s, const uint8_t *sample, const float *scale, const float *offset,
                              float *row, const float *w, const float *bias, float *y)
{
    start_at_bias(s, bias, y);
    for (int32_t c = 0; c < s->channels; c++) {
        for (int32_t r = 0; r < s->in_h; r++) {
            pmeta_decode_uint8(1, s->in_w, sample, scale + c, offset + c, row);
            add_row_to_filters(s, row, c, r, w, y);
            sample += s->in_w;
        }
    }
}

void pmeta_conv_forward_float16(const pmeta_conv_shape *s, const pmeta_float16 *x, float *row, const float *w,
                                const float *bias, float *y)
{
    start_at_bias(s, bias, y);
    for (int32_t c = 0; c < s->channels; c++) {
        for (int32_t r = 0; r < s->in_h; r++) {
            (void)pmeta_read_row(PMETA_FLOAT16, s->in_w, x, c * s->in_h + r, row);
            add_row_to_filters(s, row, c, r, w, y);
        }
    }
}

/* The transpose of add_tap: spreads w * gy to the inputs that the tap reads. */
static void spread_tap(const pmeta_conv_shape *s, const float *gy, float w, int32_t i, int32_t j, float *gx)
{
    const int32_t first_row = i * s->dilation_h - s->pad_top;
    const int32_t first_column = j * s->dilation_w - s->pad_left;
    const range rows = outputs_inside(s->out_h, s->in_h, s->stride_h, first_row);
    const range columns = outputs_inside(s->out_w, s->in_w, s->stride_w, first_column);
    for (int32_t oh = rows.begin; oh < rows.end; oh++) {
        float *in = gx + (oh * s->stride_h + first_row) * s->in_w;
        const float *out = gy + oh * s->out_w;
        for (int32_t ow = columns.begin; ow < columns.end; ow++) {
            in[ow * s->stride_w + first_column] += w * out[ow];
        }
    }
}

void pmeta_conv_input_gradient(const pmeta_conv_shape *s, int32_t first, const float *w, const float *gy, float *gx)
{
    const int32_t in_size = s->in_h * s->in_w;
    const int32_t out_size = s->out_h * s->out_w;
    for (int32_t e = 0; first && e < s->channels * in_size; e++) {
        gx[e] = 0.0f;
    }
    for (int32_t f = 0; f < s->filters; f++) {
        float *in = gx + first_channel(s, f) * in_size;
        for (int32_t c = 0; c < s->channels / s->groups; c++) {
            for (int32_t i = 0; i < s->kernel_h; i++) {
                for (int32_t j = 0; j < s->kernel_w; j++) {
                    spread_tap(s, gy, *w++, i, j, in + c * in_size);
                }
            }
        }
        gy += out_size;
    }
}

/* Sum over the output pixels of gy * x at tap (i, j), row by row. */
static float tap_gradient(const pmeta_conv_shape *s, const float *x, const float *gy, int32_t i, int32_t j)
{
    const int32_t first_row = i * s->dilation_h - s->pad_top;
    const int32_t first_column = j * s->dilation_w - s->pad_left;
    const range rows = outputs_inside(s->out_h, s->in_h, s->stride_h, first_row);
    const range columns = outputs_inside(s->out_w, s->in_w, s->stride_w, first_column);
    float d = 0.0f;
    for (int32_t oh = rows.begin; oh < rows.end; oh++) {
        const float *in = x + (oh * s->stride_h + first_row) * s->in_w;
        const float *out = gy + oh * s->out_w;
        for (int32_t ow = columns.begin; ow < columns.end; ow++) {
            d += out[ow] * in[ow * s->stride_w + first_column];
        }
    }
    return d;
}

/* Adds the gradients of channel c's taps, its input x (in_h, in_w), for all filters that read the channel. */
static void add_channel_gradient(const pmeta_conv_shape *s, int32_t c, const float *x, const float *gy,
                                 const float *gamma_bw, float *grad)
{
    const int32_t taps = s->kernel_h * s->kernel_w;
    const int32_t group_channels = s->channels / s->groups;
    const int32_t group_filters = s->filters / s->groups;
    const int32_t first = c / group_channels * group_filters;
    for (int32_t f = first; f < first + group_filters; f++) {
        const int skipped = gamma_bw != NULL && gamma_bw[f] == 0.0f;
        float *tap = grad + (f * group_channels + c % group_channels) * taps;
        for (int32_t t = 0; t < taps && !skipped; t++) {
            const float d = tap_gradient(s, x, gy + f * s->out_h * s->out_w, t / s->kernel_w, t % s->kernel_w);
            tap[t] += (gamma_bw != NULL) ? gamma_bw[f] * d : d;
        }
    }
}

void pmeta_conv_weight_gradient(const pmeta_conv_shape *s, const uint16_t *kept, int32_t type, const void *x,
                                float *decoded, const float *gy, const float *gamma_bw, float *grad)
{
    const int32_t rows = (kept != NULL) ? kept[0] : s->channels;
    for (int32_t n = 0; n < rows; n++) {
        const float *row = pmeta_read_row(type, s->in_h * s->in_w, x, n, decoded);
        add_channel_gradient(s, (kept != NULL) ? kept[1 + n] : n, row, gy, gamma_bw, grad);
    }
}
