/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_average_pool.h"

/* The taps of one window that lie inside the input: rows and columns first, first + dilation, ... < end. */
typedef struct taps_inside {
    int32_t first_row, end_row;
    int32_t first_column, end_column;
    float divisor;
} taps_inside;

/* Of the positions start, start + dilation, ..., `taps` in all: the first >= 0. */
static int32_t first_inside(int32_t start, int32_t dilation)
{
    return (start >= 0) ? start : start + (-start + dilation - 1) / dilation * dilation;
}

/* Where these positions end, at most `size`. */
static int32_t end_inside(int32_t start, int32_t dilation, int32_t taps, int32_t size)
{
    const int32_t end = start + taps * dilation;
    return (end < size) ? end : size;
}

static taps_inside taps_of(const pmeta_average_pool_shape *s, int32_t oh, int32_t ow)
{
    const int32_t row = oh * s->stride_h - s->pad_top;
    const int32_t column = ow * s->stride_w - s->pad_left;
    taps_inside t;
    t.first_row = first_inside(row, s->dilation_h);
    t.end_row = end_inside(row, s->dilation_h, s->kernel_h, s->in_h);
    t.first_column = first_inside(column, s->dilation_w);
    t.end_column = end_inside(column, s->dilation_w, s->kernel_w, s->in_w);
    int32_t count = s->kernel_h * s->kernel_w;
    if (s->count_include_pad == 0) {
        const int32_t rows = (t.end_row - t.first_row + s->dilation_h - 1) / s->dilation_h;
        const int32_t columns = (t.end_column - t.first_column + s->dilation_w - 1) / s->dilation_w;
        count = rows * columns;
    }
    t.divisor = (float)count;
    return t;
}

void pmeta_average_pool_forward(const pmeta_average_pool_shape *s, const float *x, float *y)
{
    for (int32_t c = 0; c < s->channels; c++) {
        for (int32_t oh = 0; oh < s->out_h; oh++) {
            for (int32_t ow = 0; ow < s->out_w; ow++) {
                const taps_inside t = taps_of(s, oh, ow);
                float sum = 0.0f;
                for (int32_t r = t.first_row; r < t.end_row; r += s->dilation_h) {
                    for (int32_t q = t.first_column; q < t.end_column; q += s->dilation_w) {
                        sum += x[r * s->in_w + q];
                    }
                }
                *y++ = sum / t.divisor;
            }
        }
        x += s->in_h * s->in_w;
    }
}

void pmeta_average_pool_input_gradient(const pmeta_average_pool_shape *s, const float *gy, float *gx)
{
    const int32_t size = s->in_h * s->in_w;
    for (int32_t c = 0; c < s->channels; c++) {
        for (int32_t e = 0; e < size; e++) {
            gx[e] = 0.0f;
        }
        for (int32_t oh = 0; oh < s->out_h; oh++) {
            for (int32_t ow = 0; ow < s->out_w; ow++) {
                const taps_inside t = taps_of(s, oh, ow);
                const float share = *gy++ / t.divisor;
                for (int32_t r = t.first_row; r < t.end_row; r += s->dilation_h) {
                    for (int32_t q = t.first_column; q < t.end_column; q += s->dilation_w) {
                        gx[r * s->in_w + q] += share;
                    }
                }
            }
        }
        gx += size;
    }
}
