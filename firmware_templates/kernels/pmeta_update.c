/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_update.h"

#include "pmeta_numerics.h"

void pmeta_clear(int32_t count, float *grad)
{
    for (int32_t e = 0; e < count; e++) {
        grad[e] = 0.0f;
    }
}

void pmeta_update(int32_t count, const float *w, const float *grad, float step_size, uint32_t samples, float *updated)
{
    const float rate = step_size / (float)samples;
    for (int32_t e = 0; e < count; e++) {
        updated[e] = w[e] - rate * grad[e];
    }
}
