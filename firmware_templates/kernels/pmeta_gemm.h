/* SPDX-License-Identifier: Apache-2.0
 * Gemm: a fully connected layer of F features over C inputs. */
#ifndef PMETA_GEMM_H
#define PMETA_GEMM_H

#include <stdint.h>

typedef struct pmeta_gemm_shape {
    int32_t channels; /* C */
    int32_t features; /* F */
} pmeta_gemm_shape;

/* bias may be NULL */
void pmeta_gemm_forward(const pmeta_gemm_shape *s, const float *x, /* (C,) */
                        const float *w,                            /* (F, C) */
                        const float *bias,                         /* (F,) */
                        float *y);                                 /* (F,) */

void pmeta_gemm_input_gradient(const pmeta_gemm_shape *s, const float *w, const float *gy, float *gx);

/* Adds to grad (F, C). kept: number of kept channels, then their indices, NULL for all; x holds only those, with
 * the forward attention applied. gamma_bw (F,) or NULL. */
void pmeta_gemm_weight_gradient(const pmeta_gemm_shape *s, const uint16_t *kept, const float *x, const float *gy,
                                const float *gamma_bw, float *grad);

#endif
