/* SPDX-License-Identifier: Apache-2.0
 * Meta attention: which channels of a layer learn, and how much (Fig. 3 and Algorithm 1 of the paper). */
#ifndef PMETA_ATTENTION_H
#define PMETA_ATTENTION_H

#include <stdint.h>

typedef struct pmeta_attention_module {
    int32_t channels; /* C */
    int32_t size;     /* H*W */
    int32_t rho;      /* clip ratio in thousandths */
    const float *w1;  /* (C, C) */
    const float *b1;  /* (C,) */
    const float *w2;  /* (C, C) */
    const float *b2;  /* (C,) */
} pmeta_attention_module;

/* gamma (C,) from one sample's v (C, H, W). scratch: 2 C floats; order: C entries. */
void pmeta_attention(const pmeta_attention_module *m, const float *v, float *scratch, uint16_t *order, float *gamma);

/* The channels with gamma != 0: their number, then their indices, ascending. */
void pmeta_kept_channels(int32_t channels, const float *gamma, uint16_t *kept);

/* Copies the kept rows of x (C, size) to store (kept[0], size), multiplied by gamma (C,) where that is not NULL. */
void pmeta_keep_rows(int32_t size, const uint16_t *kept, const float *x, const float *gamma, float *store);

#endif
