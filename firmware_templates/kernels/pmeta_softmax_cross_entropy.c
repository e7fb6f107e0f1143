/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_softmax_cross_entropy.h"

#include "pmeta_math.h"
#include "pmeta_numerics.h"

float pmeta_softmax_cross_entropy(int32_t ways, const float *logits, int32_t label, float *g)
{
    for (int32_t j = 0; j < ways; j++) {
        g[j] = logits[j];
    }
    float max;
    const float sum = pmeta_exp_sum(g, ways, &max);
    for (int32_t j = 0; j < ways; j++) {
        g[j] = g[j] / sum;
    }
    g[label] = g[label] - 1.0f;
    return pmeta_log(sum) - (logits[label] - max);
}
