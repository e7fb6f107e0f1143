/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_sigmoid.h"

#include "pmeta_math.h"

void pmeta_sigmoid_forward(int32_t count, float *x)
{
    for (int32_t k = 0; k < count; k++) {
        /* exp of a negative number: it never overflows. */
        if (x[k] < 0.0f) {
            const float e = pmeta_exp(x[k]);
            x[k] = e / (1.0f + e);
        } else {
            x[k] = 1.0f / (1.0f + pmeta_exp(-x[k]));
        }
    }
}

void pmeta_sigmoid_input_gradient(int32_t count, const float *y, float *g)
{
    for (int32_t k = 0; k < count; k++) {
        g[k] = g[k] * (y[k] * (1.0f - y[k]));
    }
}
