/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_relu.h"

#include "pmeta_numerics.h"

#include <stddef.h>

void pmeta_relu_forward(int32_t count, float *x, uint32_t *mask)
{
    for (int32_t start = 0; start < count; start += 32) {
        const int32_t end = (count - start < 32) ? count : start + 32;
        uint32_t word = 0;
        for (int32_t e = start; e < end; e++) {
            if (x[e] <= 0.0f) {
                x[e] = 0.0f;
            } else {
                word |= (uint32_t)1 << (e - start);
            }
        }
        if (mask != NULL) {
            mask[start / 32] = word;
        }
    }
}

void pmeta_relu_input_gradient(int32_t count, const uint32_t *mask, float *g)
{
    for (int32_t e = 0; e < count; e++) {
        if ((mask[e / 32] >> (e % 32) & 1u) == 0u) {
            g[e] = 0.0f;
        }
    }
}
