/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_clip.h"

#include <stddef.h>

void pmeta_clip_forward(const pmeta_clip_shape *s, float *x, uint32_t *mask)
{
    for (int32_t start = 0; start < s->count; start += 32) {
        const int32_t end = (s->count - start < 32) ? s->count : start + 32;
        uint32_t word = 0;
        for (int32_t e = start; e < end; e++) {
            if (x[e] <= s->min) {
                x[e] = s->min;
            } else if (x[e] >= s->max) {
                x[e] = s->max;
            } else {
                word |= (uint32_t)1 << (e - start);
            }
        }
        if (mask != NULL) {
            mask[start / 32] = word;
        }
    }
}

void pmeta_clip_input_gradient(const pmeta_clip_shape *s, const uint32_t *mask, float *g)
{
    for (int32_t e = 0; e < s->count; e++) {
        if ((mask[e / 32] >> (e % 32) & 1u) == 0u) {
            g[e] = 0.0f;
        }
    }
}
