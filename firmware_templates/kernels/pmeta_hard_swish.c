/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_hard_swish.h"

void pmeta_hard_swish_forward(int32_t count, const float *x, float *y)
{
    for (int32_t k = 0; k < count; k++) {
        if (x[k] <= -3.0f) {
            y[k] = 0.0f;
        } else if (x[k] >= 3.0f) {
            y[k] = x[k];
        } else {
            y[k] = x[k] * ((x[k] + 3.0f) * 0x1.555556p-3f);
        }
    }
}

void pmeta_hard_swish_input_gradient(int32_t count, const float *x, float *g)
{
    for (int32_t k = 0; k < count; k++) {
        if (x[k] <= -3.0f) {
            g[k] = 0.0f;
        } else if (!(x[k] >= 3.0f)) {
            g[k] = g[k] * (x[k] * 0x1.555556p-2f + 0.5f);
        }
    }
}
