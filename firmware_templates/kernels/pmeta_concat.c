/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_concat.h"

#include "pmeta_numerics.h"

void pmeta_concat_forward(int32_t begin, int32_t count, const float *x, float *y)
{
    for (int32_t e = 0; e < count; e++) {
        y[begin + e] = x[e];
    }
}

void pmeta_concat_input_gradient(int32_t begin, int32_t count, const float *gy, float *gx)
{
    for (int32_t e = 0; e < count; e++) {
        gx[e] = gy[begin + e];
    }
}
