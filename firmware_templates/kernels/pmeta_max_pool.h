/* SPDX-License-Identifier: Apache-2.0
 * MaxPool: the first largest element of each window. */
#ifndef PMETA_MAX_POOL_H
#define PMETA_MAX_POOL_H

#include <stdint.h>

typedef struct pmeta_max_pool_shape {
    int32_t channels;
    int32_t in_h, in_w;
    int32_t out_h, out_w;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
    int32_t tap_bits; /* bits that number one tap of the window */
} pmeta_max_pool_shape;

/* taps: for each output the number of the winning tap, tap_bits each, as many to a 32-bit word as fit;
 * NULL where no gradient is needed. */
void pmeta_max_pool_forward(const pmeta_max_pool_shape *s, const float *x, /* (C, in_h, in_w) */
                            float *y,                                      /* (C, out_h, out_w) */
                            uint32_t *taps);

void pmeta_max_pool_input_gradient(const pmeta_max_pool_shape *s, const float *gy, /* (C, out_h, out_w) */
                                   const uint32_t *taps, float *gx);               /* (C, in_h, in_w) */

#endif
