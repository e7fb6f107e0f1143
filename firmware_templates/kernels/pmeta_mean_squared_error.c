/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_mean_squared_error.h"

#include "pmeta_math.h"
#include "pmeta_numerics.h"

float pmeta_mean_squared_error(int32_t count, const float *outputs, const float *target, float *g)
{
    const float divisor = (float)count;
    for (int32_t j = 0; j < count; j++) {
        const float d = outputs[j] - target[j];
        g[j] = d * d;
    }
    const float loss = pmeta_lane_sum(g, count) / divisor;
    for (int32_t j = 0; j < count; j++) {
        g[j] = 2.0f * (outputs[j] - target[j]) / divisor;
    }
    return loss;
}
