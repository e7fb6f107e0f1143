/* SPDX-License-Identifier: Apache-2.0
 * GroupNormalization over groups of channels of one sample. */
#ifndef PMETA_GROUP_NORM_H
#define PMETA_GROUP_NORM_H

#include "pmeta_rows.h"

#include <stdint.h>

typedef struct pmeta_group_norm_shape {
    int32_t channels; /* C */
    int32_t groups;   /* divides C */
    int32_t size;     /* H*W */
    float epsilon;
} pmeta_group_norm_shape;

/* In place: x (C, H, W) becomes the normalized input. rstd (groups,): 1 / standard deviation, or NULL. */
void pmeta_group_norm_normalize(const pmeta_group_norm_shape *s, float *x, float *rstd);

/* z = xhat * scale + shift; z may be xhat itself. */
void pmeta_group_norm_affine(const pmeta_group_norm_shape *s, const float *xhat, const float *scale, const float *shift,
                             float *z);

/* Adds to grad (C,). kept as for convolutions; xhat holds only those rows, without attention applied, of a type of
 * pmeta_rows.h: decoded (size), NULL for float32. gamma_fw, gamma_bw: (C,) or NULL. */
void pmeta_group_norm_scale_gradient(const pmeta_group_norm_shape *s, const uint16_t *kept, int32_t type,
                                     const void *xhat, float *decoded, const float *g, const float *gamma_fw,
                                     const float *gamma_bw, float *grad);

/* From g (C, H, W) of the output, which is changed, to gx (C, H, W) of the input, which may be xhat or g itself. */
void pmeta_group_norm_input_gradient(const pmeta_group_norm_shape *s, const float *xhat, const float *rstd,
                                     const float *scale, float *g, float *gx);

#endif
