/* SPDX-License-Identifier: Apache-2.0
 * Clip: y = min where x <= min, max where x >= max, else x. */
#ifndef PMETA_CLIP_H
#define PMETA_CLIP_H

#include <stdint.h>

typedef struct pmeta_clip_shape {
    int32_t count; /* elements */
    float min;
    float max;
} pmeta_clip_shape;

/* In place. mask: one bit per element, set where x passes; NULL where no gradient is needed. */
void pmeta_clip_forward(const pmeta_clip_shape *s, float *x, uint32_t *mask);

/* In place: g becomes +0 where the mask's bit is clear. */
void pmeta_clip_input_gradient(const pmeta_clip_shape *s, const uint32_t *mask, float *g);

#endif
