/* SPDX-License-Identifier: Apache-2.0
 * Conv, forward and gradient of its input, by vectors of pixels. Included by pmeta_conv.h.
 *
 * Without strides, and with maps of equal width, an output at position p = row * width + column reads, through one tap,
 * position p + d of each input map, with the same d for all p: vectors go across rows. Where that lies beyond an edge,
 * the tap reads +0 instead. A product with it changes no sum: it is +0 or -0, as long as the weight is finite, and no
 * sum is -0, unless it starts so. */
#include "pmeta_vector.h"

#include <stddef.h>

#define PMETA_PIXEL_VECTORS 2 /* of a block */
#define PMETA_PIXEL_OUTPUTS 4
#define PMETA_PIXEL_TAPS    7   /* at most, of a kernel's row or column */
#define PMETA_PIXEL_WINDOW  512 /* at most, what a block's taps read of a map */

/* Sums over taps: of a forward pass over channels, of a backward pass over filters. */
typedef struct pmeta_conv_map {
    int32_t inputs, outputs; /* maps */
    int32_t in_h, out_h, width;
    int32_t kernel_h, kernel_w;
    int32_t row, column;           /* that tap (0, 0) reads, seen from the output */
    int32_t row_step, column_step; /* from one tap to the next */
    int32_t input_weights;         /* from the weights of one input to those of the next */
    int32_t output_weights;        /* the same for outputs */
} pmeta_conv_map;

/* How far taps reach back, at most, and ahead: in positions; never negative. */
PMETA_INLINE int32_t pmeta_conv_reach_back(const pmeta_conv_map *m)
{
    const int32_t row = pmeta_min(m->row, m->row + (m->kernel_h - 1) * m->row_step);
    const int32_t column = pmeta_min(m->column, m->column + (m->kernel_w - 1) * m->column_step);
    return -pmeta_min(row, 0) * m->width - pmeta_min(column, 0);
}

PMETA_INLINE int32_t pmeta_conv_reach_ahead(const pmeta_conv_map *m)
{
    const int32_t row = pmeta_max(m->row, m->row + (m->kernel_h - 1) * m->row_step);
    const int32_t column = pmeta_max(m->column, m->column + (m->kernel_w - 1) * m->column_step);
    return pmeta_max(row, 0) * m->width + pmeta_max(column, 0);
}

/* How many positions of a map a block's taps read. */
PMETA_INLINE int32_t pmeta_conv_window_size(const pmeta_conv_map *m)
{
    return pmeta_conv_reach_back(m) + PMETA_PIXEL_VECTORS * PMETA_VECTOR + pmeta_conv_reach_ahead(m);
}

/* Which lanes of a vector read inside the map: by kernel row and by kernel column. */
typedef struct pmeta_conv_inside {
    pmeta_ints rows[PMETA_PIXEL_TAPS], columns[PMETA_PIXEL_TAPS];
} pmeta_conv_inside;

/* A block: pixels of some outputs that are summed together. How many `outputs` and `vectors` it has is a constant, as
 * is whether taps can read above or below the map, `clipped`. */
typedef struct pmeta_conv_pixel_block {
    int32_t at[PMETA_PIXEL_VECTORS];    /* first pixel of each vector */
    int32_t fresh[PMETA_PIXEL_VECTORS]; /* its first lane that no other vector computes */
    pmeta_conv_inside inside[PMETA_PIXEL_VECTORS];
    pmeta_floats sum[PMETA_PIXEL_OUTPUTS][PMETA_PIXEL_VECTORS];
} pmeta_conv_pixel_block;

/* What a block's taps read of a map. */
typedef struct pmeta_conv_window {
    float of[PMETA_PIXEL_WINDOW];
} pmeta_conv_window;

PMETA_INLINE void pmeta_conv_find_inside(const pmeta_conv_map *m, int32_t position, pmeta_conv_inside *inside)
{
    pmeta_ints row = position / m->width + (pmeta_ints){0};
    pmeta_ints column = position % m->width + pmeta_vector_lanes();
    PMETA_UNROLL
    for (int32_t n = 0; n < PMETA_VECTOR; n += m->width) {
        const pmeta_ints beyond = column >= m->width;
        column -= beyond & m->width;
        row -= beyond;
    }
    PMETA_UNROLL
    for (int32_t i = 0; i < m->kernel_h; i++) {
        const pmeta_ints read = row + (m->row + i * m->row_step);
        inside->rows[i] = (read >= 0) & (read < m->in_h);
    }
    PMETA_UNROLL
    for (int32_t j = 0; j < m->kernel_w; j++) {
        const pmeta_ints read = column + (m->column + j * m->column_step);
        inside->columns[j] = (read >= 0) & (read < m->width);
    }
}

/* Starts the sums of the pixels from `position` on: at the bias, at +0, or where y `continues`. A vector that would
 * reach beyond the map moves back. */
PMETA_INLINE void pmeta_conv_pixels_begin(const pmeta_conv_map *m, int32_t outputs, int32_t vectors, int32_t position,
                                          const float *bias, int continues, const float *y,
                                          pmeta_conv_pixel_block *block)
{
    const int32_t size = m->out_h * m->width;
    PMETA_UNROLL
    for (int32_t v = 0; v < vectors; v++) {
        const int32_t at = pmeta_min(position + v * PMETA_VECTOR, size - PMETA_VECTOR);
        block->at[v] = at;
        block->fresh[v] = position + v * PMETA_VECTOR - at;
        pmeta_conv_find_inside(m, at, &block->inside[v]);
        PMETA_UNROLL
        for (int32_t o = 0; o < outputs; o++) {
            block->sum[o][v] =
                continues ? pmeta_vector_load(y + o * size + at) : pmeta_vector_splat((bias != NULL) ? bias[o] : 0.0f);
        }
    }
}

/* Stores the sums. Lanes that another vector has stored keep what it did: a sum that continues must not do so twice. */
PMETA_INLINE void pmeta_conv_pixels_end(const pmeta_conv_map *m, int32_t outputs, int32_t vectors, int clipped,
                                        const pmeta_conv_pixel_block *block, float *y)
{
    PMETA_UNROLL
    for (int32_t o = 0; o < outputs; o++) {
        PMETA_UNROLL
        for (int32_t v = 0; v < vectors; v++) {
            float *to = y + o * m->out_h * m->width + block->at[v];
            const pmeta_ints fresh = pmeta_vector_lanes() >= block->fresh[v];
            const pmeta_floats sum = block->sum[o][v];
            pmeta_vector_store(to, clipped ? pmeta_vector_select(fresh, sum, pmeta_vector_load(to)) : sum);
        }
    }
}

/* Adds one kernel row of an input map, with weights w. The first tap reads x[from], x[from + 1], ... */
PMETA_INLINE void pmeta_conv_pixels_taps(const pmeta_conv_map *m, int32_t outputs, int32_t vectors, int clipped,
                                         int32_t i, const float *x, const ptrdiff_t *from, const float *w,
                                         pmeta_conv_pixel_block *block)
{
    PMETA_UNROLL
    for (int32_t j = 0; j < m->kernel_w; j++) {
        pmeta_floats read[PMETA_PIXEL_VECTORS];
        PMETA_UNROLL
        for (int32_t v = 0; v < vectors; v++) {
            read[v] = pmeta_vector_load(x + (from[v] + j * m->column_step));
            if (clipped) {
                read[v] = pmeta_vector_masked(read[v], block->inside[v].rows[i]);
            }
            if (m->column + j * m->column_step != 0) {
                read[v] = pmeta_vector_masked(read[v], block->inside[v].columns[j]);
            }
        }
        PMETA_UNROLL
        for (int32_t o = 0; o < outputs; o++) {
            PMETA_UNROLL
            for (int32_t v = 0; v < vectors; v++) {
                block->sum[o][v] += w[o * m->output_weights + j] * read[v];
            }
        }
    }
}

/* Input map c for a block at `at`; *start is the position of its first element. Where taps would read outside the
 * tensor, what exists is copied. */
PMETA_INLINE const float *pmeta_conv_input_map(const pmeta_conv_map *m, int clipped, int32_t at, int32_t c,
                                               const float *x, int32_t *start, pmeta_conv_window *window)
{
    const int32_t size = m->in_h * m->width;
    const int32_t count = pmeta_conv_window_size(m);
    const int32_t first = at - pmeta_conv_reach_back(m);
    const int32_t begin = c * size + first;
    *start = 0;
    if (!clipped || (begin >= 0 && begin + count <= m->inputs * size)) {
        return x + c * size;
    }
    for (int32_t n = 0; n < count; n++) {
        window->of[n] = (begin + n >= 0 && begin + n < m->inputs * size) ? x[begin + n] : 0.0f;
    }
    *start = first;
    return window->of;
}

/* Pixels from `position` on of the first output maps of w and y. */
PMETA_INLINE void pmeta_conv_pixels_block(const pmeta_conv_map *m, int32_t outputs, int32_t vectors, int clipped,
                                          int32_t position, const float *x, const float *w, const float *bias,
                                          int continues, float *y)
{
    pmeta_conv_pixel_block block;
    pmeta_conv_window window;
    pmeta_conv_pixels_begin(m, outputs, vectors, position, bias, continues, y, &block);
    for (int32_t c = 0; c < m->inputs; c++) {
        int32_t start;
        const float *map = pmeta_conv_input_map(m, clipped, block.at[0], c, x, &start, &window);
        for (int32_t i = 0; i < m->kernel_h; i++) {
            ptrdiff_t from[PMETA_PIXEL_VECTORS];
            PMETA_UNROLL
            for (int32_t v = 0; v < vectors; v++) {
                from[v] = block.at[v] + (m->row + i * m->row_step) * m->width + m->column - start;
            }
            pmeta_conv_pixels_taps(m, outputs, vectors, clipped, i, map, from,
                                   w + c * m->input_weights + i * m->kernel_w, &block);
        }
    }
    pmeta_conv_pixels_end(m, outputs, vectors, clipped, &block, y);
}

/* All pixels of `outputs` maps. */
PMETA_INLINE void pmeta_conv_pixels_maps(const pmeta_conv_map *m, int32_t outputs, const float *x, const float *w,
                                         const float *bias, int continues, float *y)
{
    const int32_t size = m->out_h * m->width;
    const int32_t block = PMETA_PIXEL_VECTORS * PMETA_VECTOR;
    const int32_t begin = pmeta_conv_reach_back(m); /* of the positions whose taps all lie in rows of the map */
    const int32_t end = pmeta_min(size, m->in_h * m->width - pmeta_conv_reach_ahead(m));
    int32_t position = 0;
    for (; position + PMETA_VECTOR < size; position += block) {
        if (position >= begin && position + block <= end) {
            pmeta_conv_pixels_block(m, outputs, PMETA_PIXEL_VECTORS, 0, position, x, w, bias, continues, y);
        } else {
            pmeta_conv_pixels_block(m, outputs, PMETA_PIXEL_VECTORS, 1, position, x, w, bias, continues, y);
        }
    }
    if (position < size) {
        pmeta_conv_pixels_block(m, outputs, 1, 1, position, x, w, bias, continues, y);
    }
}

/* All maps of a group. */
PMETA_INLINE void pmeta_conv_pixels(const pmeta_conv_map *m, const float *x, const float *w, const float *bias,
                                    int continues, float *y)
{
    const int32_t size = m->out_h * m->width;
    const int32_t block = pmeta_part(m->outputs, PMETA_PIXEL_OUTPUTS);
    const int32_t rest = m->outputs % block;
    for (int32_t n = 0; n < m->outputs / block; n++) {
        pmeta_conv_pixels_maps(m, block, x, w, bias, continues, y);
        w += block * m->output_weights;
        bias = (bias != NULL) ? bias + block : NULL;
        y += block * size;
    }
    if (rest > 0) {
        pmeta_conv_pixels_maps(m, rest, x, w, bias, continues, y);
    }
}

/* Whether a tap that reads +0 changes no sum: weights are finite, no sum starts at -0. */
PMETA_INLINE int pmeta_conv_may_read_zeros(int32_t weights, const float *w, int32_t outputs, const float *bias)
{
    pmeta_ints infinite = {0}; /* or NaN */
    int found = 0;
    int32_t n = 0;
    for (; n + PMETA_VECTOR <= weights; n += PMETA_VECTOR) {
        const pmeta_floats v = pmeta_vector_load(w + n);
        infinite |= v - v != 0.0f;
    }
    for (; n < weights; n++) {
        found |= w[n] - w[n] != 0.0f;
    }
    for (n = 0; n < PMETA_VECTOR; n++) {
        found |= infinite[n];
    }
    for (int32_t o = 0; bias != NULL && o < outputs; o++) {
        found |= bias[o] == 0.0f && __builtin_signbit(bias[o]);
    }
    return !found;
}

PMETA_INLINE pmeta_conv_map pmeta_conv_forward_map(const pmeta_conv_shape *s)
{
    const int32_t channels = s->channels / s->groups;
    const int32_t taps = s->kernel_h * s->kernel_w;
    const pmeta_conv_map map = {.inputs = channels,
                                .outputs = s->filters / s->groups,
                                .in_h = s->in_h,
                                .out_h = s->out_h,
                                .width = s->in_w,
                                .kernel_h = s->kernel_h,
                                .kernel_w = s->kernel_w,
                                .row = -s->pad_top,
                                .column = -s->pad_left,
                                .row_step = s->dilation_h,
                                .column_step = s->dilation_w,
                                .input_weights = taps,
                                .output_weights = channels * taps};
    return map;
}

/* Of the gradient of the input: everything in reverse. */
PMETA_INLINE pmeta_conv_map pmeta_conv_backward_map(const pmeta_conv_shape *s)
{
    pmeta_conv_map map = pmeta_conv_forward_map(s);
    const pmeta_conv_map forward = map;
    map.inputs = forward.outputs;
    map.outputs = forward.inputs;
    map.in_h = forward.out_h;
    map.out_h = forward.in_h;
    map.row = -forward.row;
    map.column = -forward.column;
    map.row_step = -forward.row_step;
    map.column_step = -forward.column_step;
    map.input_weights = forward.output_weights;
    map.output_weights = forward.input_weights;
    return map;
}

/* Whether a layer's passes can go by vectors of pixels; weights and biases may still forbid it. */
PMETA_INLINE int pmeta_conv_has_pixels(const pmeta_conv_shape *s)
{
    const pmeta_conv_map map = pmeta_conv_forward_map(s); /* the window of the backward one has the same size */
    return s->stride_h == 1 && s->stride_w == 1 && s->in_w == s->out_w && s->in_h * s->in_w >= PMETA_VECTOR &&
           s->out_h * s->out_w >= PMETA_VECTOR && s->kernel_h <= PMETA_PIXEL_TAPS && s->kernel_w <= PMETA_PIXEL_TAPS &&
           pmeta_conv_window_size(&map) <= PMETA_PIXEL_WINDOW;
}

/* All groups; 0, and nothing done, if the layer has to go another way. */
PMETA_INLINE int pmeta_conv_by_pixels(const pmeta_conv_shape *s, const pmeta_conv_map *m, const float *x,
                                      const float *w, const float *bias, int continues, float *y)
{
    const int32_t weights = m->inputs * m->outputs * m->kernel_h * m->kernel_w; /* of a group */
    const int all_inside = s->kernel_h * s->kernel_w == 1 && s->pad_top + s->pad_left == 0 && s->in_h == s->out_h;
    if (!pmeta_conv_has_pixels(s) ||
        !(all_inside || pmeta_conv_may_read_zeros(s->groups * weights, w, s->filters, bias))) {
        return 0;
    }
    for (int32_t group = 0; group < s->groups; group++) {
        pmeta_conv_pixels(m, x, w, bias, continues, y);
        x += m->inputs * m->in_h * m->width;
        w += weights;
        bias = (bias != NULL) ? bias + m->outputs : NULL;
        y += m->outputs * m->out_h * m->width;
    }
    return 1;
}
