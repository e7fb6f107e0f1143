/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_bias.h"

#include "pmeta_inline.h"
#include "pmeta_numerics.h"

#include <stddef.h>

void pmeta_bias_gradient(int32_t channels, int32_t size, const float *g, const float *gamma_bw, float *grad)
{
    for (int32_t c = 0; c < channels; c++) {
        if (gamma_bw == NULL || gamma_bw[c] != 0.0f) {
            float d = 0.0f;
            PMETA_UNROLL_SOME
            for (int32_t p = 0; p < size; p++) {
                d += g[p];
            }
            grad[c] += (gamma_bw != NULL) ? gamma_bw[c] * d : d;
        }
        g += size;
    }
}
