/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_tanh.h"

#include "pmeta_math.h"

/* Of a number >= 0, or NaN. */
static float tanh_of_magnitude(float a)
{
    if (a < 0.625f) {
        const float s = a * a;
        float q = -0x1.75e1ccp-8f;
        q = q * s + 0x1.52269ap-6f;
        q = q * s + -0x1.b83c5ap-5f;
        q = q * s + 0x1.110726p-3f;
        q = q * s + -0x1.555532p-2f;
        return a + (a * s) * q;
    }
    return 1.0f - 2.0f / (pmeta_exp(a + a) + 1.0f);
}

void pmeta_tanh_forward(int32_t count, float *x)
{
    for (int32_t k = 0; k < count; k++) {
        x[k] = __builtin_copysignf(tanh_of_magnitude(__builtin_fabsf(x[k])), x[k]);
    }
}

void pmeta_tanh_input_gradient(int32_t count, const float *y, float *g)
{
    for (int32_t k = 0; k < count; k++) {
        g[k] = g[k] * (1.0f - y[k] * y[k]);
    }
}
