/* SPDX-License-Identifier: Apache-2.0
 * AveragePool: the mean of each window. */
#ifndef PMETA_AVERAGE_POOL_H
#define PMETA_AVERAGE_POOL_H

#include <stdint.h>

typedef struct pmeta_average_pool_shape {
    int32_t channels;
    int32_t in_h, in_w;
    int32_t out_h, out_w;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
    int32_t count_include_pad; /* 1: divide by all taps of the window, 0: by those inside the input */
} pmeta_average_pool_shape;

void pmeta_average_pool_forward(const pmeta_average_pool_shape *s, const float *x, /* (C, in_h, in_w) */
                                float *y);                                         /* (C, out_h, out_w) */

void pmeta_average_pool_input_gradient(const pmeta_average_pool_shape *s, const float *gy, /* (C, out_h, out_w) */
                                       float *gx);                                         /* (C, in_h, in_w) */

#endif
