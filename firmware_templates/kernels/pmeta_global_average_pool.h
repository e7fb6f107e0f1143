/* SPDX-License-Identifier: Apache-2.0
 * GlobalAveragePool: the mean of each channel. */
#ifndef PMETA_GLOBAL_AVERAGE_POOL_H
#define PMETA_GLOBAL_AVERAGE_POOL_H

#include <stdint.h>

/* size: H * W. x: (C, H, W), y: (C,) */
void pmeta_global_average_pool_forward(int32_t channels, int32_t size, const float *x, float *y);

/* gy: (C,), gx: (C, H, W) */
void pmeta_global_average_pool_input_gradient(int32_t channels, int32_t size, const float *gy, float *gx);

#endif
