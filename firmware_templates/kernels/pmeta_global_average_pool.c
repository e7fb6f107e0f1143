/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_global_average_pool.h"

#include "pmeta_math.h"

void pmeta_global_average_pool_forward(int32_t channels, int32_t size, const float *x, float *y)
{
    for (int32_t c = 0; c < channels; c++) {
        y[c] = pmeta_lane_sum(x + c * size, size) / (float)size;
    }
}

void pmeta_global_average_pool_input_gradient(int32_t channels, int32_t size, const float *gy, float *gx)
{
    for (int32_t c = 0; c < channels; c++) {
        const float share = gy[c] / (float)size;
        for (int32_t e = 0; e < size; e++) {
            *gx++ = share;
        }
    }
}
