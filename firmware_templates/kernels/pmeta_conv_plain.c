/* SPDX-License-Identifier: Apache-2.0
 * Tap by tap: what one weight reaches is a rectangle of outputs, which read a rectangle of inputs. Sums lie where the
 * results do; each takes its taps in the order of docs/numerics.md. */
#include "pmeta_conv_plain.h"

#include "pmeta_numerics.h"

#include <stddef.h>

#define IN_LINE    static inline __attribute__((always_inline)) /* for constant arguments */
#define NOT_INLINE static __attribute__((noinline))             /* in every pass it would only be larger */

/* Where a rectangle lies in a map: its first float, and how far behind one are the next row and the next column. */
typedef struct place {
    int32_t first, row, column;
} place;

/* The outputs that read inputs through one tap, and these inputs. */
typedef struct rectangles {
    int32_t rows, columns;
    place outputs, inputs;
} rectangles;

/* Outputs along one axis: `count`, from `output` on; the first reads `input`. */
typedef struct range {
    int32_t count, output, input;
} range;

/* `first` is the input that the first output reads, inside or not. */
static range range_of(int32_t outputs, int32_t inputs, int32_t stride, int32_t first)
{
    const int32_t begin = (first < 0) ? pmeta_divided_up(-first, stride) : 0;
    const int32_t end = (inputs > first) ? pmeta_min(outputs, (inputs - 1 - first) / stride + 1) : 0;
    const range found = {pmeta_max(0, end - begin), begin, first + begin * stride};
    return found;
}

NOT_INLINE rectangles rectangles_of(const pmeta_conv_shape *s, int32_t tap)
{
    const int32_t i = tap / s->kernel_w;
    const int32_t j = tap % s->kernel_w;
    const range rows = range_of(s->out_h, s->in_h, s->stride_h, i * s->dilation_h - s->pad_top);
    const range columns = range_of(s->out_w, s->in_w, s->stride_w, j * s->dilation_w - s->pad_left);
    rectangles found = {rows.count,
                        columns.count,
                        {rows.output * s->out_w + columns.output, s->out_w, 1},
                        {rows.input * s->in_w + columns.input, s->stride_h * s->in_w, s->stride_w}};
    if (columns.count == s->out_w && s->out_w == s->in_w && s->stride_h == 1 && s->stride_w == 1) {
        found.rows = 1; /* whole rows lie one behind the other */
        found.columns = rows.count * columns.count;
    }
    return found;
}

/* Rows of sums += w * factors; where columns lie side by side, steps are constants. */
IN_LINE void add_rows(const rectangles *r, float *sums, int32_t row, int32_t step, const float *factors,
                      int32_t factor_row, int32_t factor_step, float w)
{
    for (int32_t n = r->rows; n > 0; n--) {
        float *sum = sums;
        const float *factor = factors;
        const float *end = factors + r->columns * factor_step;
        while (factor != end) {
            *sum += w * *factor;
            sum += step;
            factor += factor_step;
        }
        sums += row;
        factors += factor_row;
    }
}

/* Adds w times one rectangle of floats to the other. */
NOT_INLINE void add_scaled(const rectangles *r, const place *to, float *sums, const place *from, const float *factors,
                           float w)
{
    sums += to->first;
    factors += from->first;
    if (to->column == 1 && from->column == 1) { /* almost always */
        add_rows(r, sums, to->row, 1, factors, from->row, 1, w);
    } else {
        add_rows(r, sums, to->row, to->column, factors, from->row, from->column, w);
    }
}

/* The sum of products of rows of outputs' gradients and what they read, every `step`-th. */
IN_LINE float sum_of_rows(const rectangles *r, const float *g, const float *x, int32_t step)
{
    float d = 0.0f;
    for (int32_t n = r->rows; n > 0; n--) {
        const float *gradient = g;
        const float *input = x;
        const float *end = g + r->columns;
        while (gradient != end) {
            d += *gradient++ * *input;
            input += step;
        }
        g += r->outputs.row;
        x += r->inputs.row;
    }
    return d;
}

NOT_INLINE float sum_of_products(const rectangles *r, const float *g, const float *x)
{
    g += r->outputs.first;
    x += r->inputs.first;
    return (r->inputs.column == 1) ? sum_of_rows(r, g, x, 1) : sum_of_rows(r, g, x, r->inputs.column);
}

/* Adds what `filters` filters get from channel c through one tap; w and y are the first one's, w at that tap. */
static void add_tap(const pmeta_conv_shape *s, const rectangles *r, const float *x, int32_t filters, const float *w,
                    float *y)
{
    for (int32_t f = 0; f < filters; f++) {
        add_scaled(r, &r->outputs, y, &r->inputs, x, *w);
        w += s->channels / s->groups * s->kernel_h * s->kernel_w;
        y += s->out_h * s->out_w;
    }
}

/* The same, of a map that must be decoded: once for all filters. */
static void add_decoded_tap(const pmeta_conv_shape *s, const rectangles *r, const pmeta_conv_input *x, int32_t c,
                            int32_t filters, const float *w, float *y)
{
    const int32_t weights = s->channels / s->groups * s->kernel_h * s->kernel_w; /* of a filter */
    for (int32_t n = 0; n < r->rows * r->columns; n++) {
        const int32_t row = n / r->columns;
        const int32_t column = n % r->columns;
        const int32_t index = r->inputs.first + row * r->inputs.row + column * r->inputs.column;
        const float value = pmeta_conv_read(x, c, c * s->in_h * s->in_w + index);
        float *sum = y + r->outputs.first + row * r->outputs.row + column;
        const float *weight = w;
        for (int32_t f = filters; f > 0; f--) {
            *sum += *weight * value;
            sum += s->out_h * s->out_w;
            weight += weights;
        }
    }
}

void pmeta_conv_plain_forward(const pmeta_conv_shape *s, int32_t type, const void *x, const float *scale,
                              const float *offset, const float *w, const float *bias, float *y)
{
    const pmeta_conv_input input = {type, x, scale, offset};
    const int32_t channels = s->channels / s->groups;
    const int32_t filters = s->filters / s->groups;
    const int32_t taps = s->kernel_h * s->kernel_w;
    const int32_t outputs = s->out_h * s->out_w;
    for (int32_t n = 0; n < s->filters * outputs; n++) {
        y[n] = (bias != NULL) ? bias[n / outputs] : 0.0f;
    }
    for (int32_t c = 0; c < s->channels; c++) {
        const int32_t first = c / channels * filters; /* filter of its group */
        for (int32_t tap = 0; tap < taps; tap++) {
            const rectangles r = rectangles_of(s, tap);
            const float *weight = w + (first * channels + c % channels) * taps + tap;
            if (type == PMETA_FLOAT32) {
                add_tap(s, &r, (const float *)x + c * s->in_h * s->in_w, filters, weight, y + first * outputs);
            } else {
                add_decoded_tap(s, &r, &input, c, filters, weight, y + first * outputs);
            }
        }
    }
}

void pmeta_conv_plain_input_gradient(const pmeta_conv_shape *s, int32_t first, const float *w, const float *gy,
                                     float *gx)
{
    const int32_t channels = s->channels / s->groups;
    const int32_t taps = s->kernel_h * s->kernel_w;
    const int32_t inputs = s->in_h * s->in_w;
    for (int32_t n = 0; n < s->channels * inputs && first; n++) {
        gx[n] = 0.0f;
    }
    for (int32_t f = 0; f < s->filters; f++) {
        const int32_t group = f / (s->filters / s->groups);
        for (int32_t tap = 0; tap < taps; tap++) {
            const rectangles r = rectangles_of(s, tap);
            for (int32_t c = 0; c < channels; c++) {
                float *map = gx + (group * channels + c) * inputs;
                add_scaled(&r, &r.inputs, map, &r.outputs, gy + f * s->out_h * s->out_w, w[c * taps + tap]);
            }
        }
        w += channels * taps;
    }
}

void pmeta_conv_plain_weight_gradient(const pmeta_conv_shape *s, const uint16_t *kept, int32_t type, const void *x,
                                      float *decoded, const float *gy, const float *gamma_bw, float *grad)
{
    const int32_t rows = (kept != NULL) ? kept[0] : s->channels;
    const int32_t channels = s->channels / s->groups;
    const int32_t filters = s->filters / s->groups;
    const int32_t taps = s->kernel_h * s->kernel_w;
    for (int32_t n = 0; n < rows; n++) {
        const int32_t c = (kept != NULL) ? kept[1 + n] : n;
        const int32_t first = c / channels * filters; /* filter of its group */
        const float *map = pmeta_read_row(type, s->in_h * s->in_w, x, n, decoded);
        for (int32_t tap = 0; tap < taps; tap++) {
            const rectangles r = rectangles_of(s, tap);
            for (int32_t f = first; f < first + filters; f++) {
                if (gamma_bw == NULL || gamma_bw[f] != 0.0f) {
                    const float d = sum_of_products(&r, gy + f * s->out_h * s->out_w, map);
                    grad[(f * channels + c % channels) * taps + tap] += (gamma_bw != NULL) ? gamma_bw[f] * d : d;
                }
            }
        }
    }
}
