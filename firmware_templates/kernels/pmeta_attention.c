/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_attention.h"

#include "pmeta_gemm.h"
#include "pmeta_math.h"
#include "pmeta_numerics.h"
#include "pmeta_rows.h"

#include <stddef.h>

/* order becomes the indices of pi in ascending order, ties by lower index, NaN last. */
static void sort_ascending(int32_t channels, const float *pi, uint16_t *order)
{
    for (int32_t j = 0; j < channels; j++) {
        int32_t place = j;
        while (place > 0) {
            const float before = pi[order[place - 1]];
            const int moves = pi[j] < before || (before != before && pi[j] == pi[j]);
            if (!moves) {
                break;
            }
            order[place] = order[place - 1];
            place--;
        }
        order[place] = (uint16_t)j;
    }
}

/* Algorithm 1, lines 1 to 3: zeroes the smallest entries of pi that together reach the clip ratio. */
static void clip(int32_t channels, int32_t rho, float *pi, uint16_t *order)
{
    const float ratio = (float)rho / 1000.0f;
    const int32_t least = (rho * channels + 999) / 1000; /* so many are zeroed whatever the input */
    sort_ascending(channels, pi, order);
    float sum = 0.0f;
    int32_t count = 0;
    while (count < channels) {
        sum += pi[order[count]];
        count++;
        if (sum >= ratio) {
            break;
        }
    }
    count = (count < least) ? least : count;
    count = (count > channels - 1) ? channels - 1 : count;
    for (int32_t n = 0; n < count; n++) {
        pi[order[n]] = 0.0f;
    }
}

void pmeta_channel_means(int32_t channels, int32_t size, int32_t type, const void *v, float *decoded, float *means)
{
    for (int32_t c = 0; c < channels; c++) {
        means[c] = pmeta_lane_sum(pmeta_read_row(type, size, v, c, decoded), size) / (float)size;
    }
}

void pmeta_attention_output(const pmeta_attention_module *m, int32_t first, const float *means, float *hidden,
                            float *sum)
{
    const int32_t channels = m->channels;
    float *output = hidden + channels;
    const pmeta_gemm_shape square = {channels, channels};
    pmeta_gemm_forward(&square, means, m->w1, m->b1, hidden);
    for (int32_t c = 0; c < channels; c++) {
        hidden[c] = (hidden[c] <= 0.0f) ? 0.0f : hidden[c];
    }
    pmeta_gemm_forward(&square, hidden, m->w2, m->b2, output);
    for (int32_t c = 0; c < channels; c++) {
        sum[c] = (first ? 0.0f : sum[c]) + output[c];
    }
}

void pmeta_attention_scores(const pmeta_attention_module *m, int32_t count, const float *sum, uint16_t *order,
                            float *gamma)
{
    const int32_t channels = m->channels;
    for (int32_t c = 0; c < channels; c++) {
        gamma[c] = sum[c] / (float)count;
    }
    float max;
    const float total = pmeta_exp_sum(gamma, channels, &max);
    for (int32_t c = 0; c < channels; c++) {
        gamma[c] = gamma[c] / total;
    }
    if (m->rho > 0 && channels > 1) {
        clip(channels, m->rho, gamma, order);
    }
    const float left = pmeta_lane_sum(gamma, channels);
    for (int32_t c = 0; c < channels; c++) {
        if (gamma[c] != 0.0f) { /* a clipped channel stays +0 even where left is NaN: the store has no room for it */
            gamma[c] = gamma[c] / left * (float)channels;
        }
    }
}

void pmeta_kept_channels(int32_t channels, const float *gamma, uint16_t *kept)
{
    uint16_t count = 0;
    for (int32_t c = 0; c < channels; c++) {
        if (gamma[c] != 0.0f) {
            count++;
            kept[count] = (uint16_t)c;
        }
    }
    kept[0] = count;
}

void pmeta_keep_rows(int32_t size, const uint16_t *kept, int32_t x_type, const void *x, const float *gamma, float *row,
                     int32_t type, void *store)
{
    for (int32_t n = 0; n < kept[0]; n++) {
        const int32_t c = kept[1 + n];
        const float *values = pmeta_read_row(x_type, size, x, c, row);
        float *weighed = (type == PMETA_FLOAT32) ? (float *)store + n * size : row;
        for (int32_t p = 0; p < size; p++) {
            weighed[p] = (gamma != NULL) ? gamma[c] * values[p] : values[p];
        }
        if (type != PMETA_FLOAT32) {
            pmeta_write_row(type, size, weighed, store, n);
        }
    }
}

void pmeta_keep_elements(const uint16_t *kept, int32_t x_type, const void *x, const float *gamma, float *row,
                         int32_t type, void *store)
{
    for (int32_t n = 0; n < kept[0]; n++) {
        const int32_t c = kept[1 + n];
        const float value = *pmeta_read_row(x_type, 1, x, c, row + n);
        row[n] = (gamma != NULL) ? gamma[c] * value : value;
    }
    pmeta_write_row(type, kept[0], row, store, 0);
}
