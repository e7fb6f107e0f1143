/* SPDX-License-Identifier: Apache-2.0
 * Conv in plain loops, compiled once for all shapes: for cores without a floating-point unit. */
#ifndef PMETA_CONV_PLAIN_H
#define PMETA_CONV_PLAIN_H

#include "pmeta_conv_shape.h"

#include <stddef.h>
#include <stdint.h>

/* All as in pmeta_conv.h; type is that of x, scale and offset (C,) are those of PMETA_UINT8. */
void pmeta_conv_plain_forward(const pmeta_conv_shape *s, int32_t type, const void *x, const float *scale,
                              const float *offset, const float *w, const float *bias, float *y);
void pmeta_conv_plain_input_gradient(const pmeta_conv_shape *s, int32_t first, const float *w, const float *gy,
                                     float *gx);
void pmeta_conv_plain_weight_gradient(const pmeta_conv_shape *s, const uint16_t *kept, int32_t type, const void *x,
                                      float *decoded, const float *gy, const float *gamma_bw, float *grad);

#if defined(PMETA_SOFT_FLOAT)

PMETA_INLINE void pmeta_conv_forward(const pmeta_conv_shape *s, const float *x, const float *w, const float *bias,
                                     float *y)
{
    pmeta_conv_plain_forward(s, PMETA_FLOAT32, x, NULL, NULL, w, bias, y);
}

PMETA_INLINE void pmeta_conv_forward_uint8(const pmeta_conv_shape *s, const uint8_t *sample, const float *scale,
                                           const float *offset, const float *w, const float *bias, float *y)
{
    pmeta_conv_plain_forward(s, PMETA_UINT8, sample, scale, offset, w, bias, y);
}

PMETA_INLINE void pmeta_conv_forward_float16(const pmeta_conv_shape *s, const pmeta_float16 *x, const float *w,
                                             const float *bias, float *y)
{
    pmeta_conv_plain_forward(s, PMETA_FLOAT16, x, NULL, NULL, w, bias, y);
}

PMETA_INLINE void pmeta_conv_input_gradient(const pmeta_conv_shape *s, int32_t first, const float *w, const float *gy,
                                            float *gx)
{
    pmeta_conv_plain_input_gradient(s, first, w, gy, gx);
}

PMETA_INLINE void pmeta_conv_weight_gradient(const pmeta_conv_shape *s, const uint16_t *kept, int32_t type,
                                             const void *x, float *decoded, const float *gy, const float *gamma_bw,
                                             float *grad)
{
    pmeta_conv_plain_weight_gradient(s, kept, type, x, decoded, gy, gamma_bw, grad);
}

#endif

#endif
