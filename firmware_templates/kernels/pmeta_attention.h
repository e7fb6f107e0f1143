/* SPDX-License-Identifier: Apache-2.0
 * Meta attention: which channels of a layer learn, and how much (Fig. 3 and Algorithm 1 of the paper). */
#ifndef PMETA_ATTENTION_H
#define PMETA_ATTENTION_H

#include "pmeta_rows.h"

#include <stdint.h>

typedef struct pmeta_attention_module {
    int32_t channels; /* C */
    int32_t rho;      /* clip ratio in thousandths */
    const float *w1;  /* (C, C) */
    const float *b1;  /* (C,) */
    const float *w2;  /* (C, C) */
    const float *b2;  /* (C,) */
} pmeta_attention_module;

/* means (C,) of the channels of one sample's v (C, size), of a type of pmeta_rows.h: decoded (size), NULL for float32.
 */
void pmeta_channel_means(int32_t channels, int32_t size, int32_t type, const void *v, float *decoded, float *means);

/* Adds the module's output for one sample's means (C,) to sum (C,), which starts at +0 with the `first` of a
 * micro-batch. hidden: 2 C floats. */
void pmeta_attention_output(const pmeta_attention_module *m, int32_t first, const float *means, float *hidden,
                            float *sum);

/* gamma (C,) from the sum (C,) over a micro-batch of `count` samples; may be the same array. order: C entries. */
void pmeta_attention_scores(const pmeta_attention_module *m, int32_t count, const float *sum, uint16_t *order,
                            float *gamma);

/* The channels with gamma != 0: their number, then their indices, ascending. */
void pmeta_kept_channels(int32_t channels, const float *gamma, uint16_t *kept);

/* Stores the kept rows of x (C, size), multiplied by gamma (C,) where that is not NULL. Both are of a type of
 * pmeta_rows.h; row (size) is NULL where both are float32. */
void pmeta_keep_rows(int32_t size, const uint16_t *kept, int32_t x_type, const void *x, const float *gamma, float *row,
                     int32_t type, void *store);

/* The same of a vector x (C,): what is kept of it becomes one row. row: kept[0] floats. */
void pmeta_keep_elements(const uint16_t *kept, int32_t x_type, const void *x, const float *gamma, float *row,
                         int32_t type, void *store);

#endif
