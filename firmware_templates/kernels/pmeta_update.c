/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_update.h"

#include "pmeta_inline.h"
#include "pmeta_numerics.h"

#include <stddef.h>

void pmeta_clear(int32_t count, float *grad)
{
    PMETA_UNROLL_SOME
    for (int32_t e = 0; e < count; e++) {
        grad[e] = 0.0f;
    }
}

void pmeta_update(int32_t count, const float *w, const float *grad, float step_size, uint32_t samples, float *updated)
{
    const float rate = step_size / (float)samples;
    PMETA_UNROLL_SOME
    for (int32_t e = 0; e < count; e++) {
        updated[e] = w[e] - rate * grad[e];
    }
}

void pmeta_scale_channels(int32_t rows, int32_t columns, int32_t taps, int32_t group_rows, const float *out,
                          const float *in, float *grad)
{
    for (int32_t f = 0; f < rows; f++) {
        const int32_t first = (f / group_rows) * columns;
        for (int32_t c = 0; c < columns; c++) {
            const float by_row = (out != NULL) ? out[f] : 1.0f;
            const float factor = (in != NULL) ? by_row * in[first + c] : by_row;
            for (int32_t t = 0; t < taps; t++) {
                *grad *= factor;
                grad++;
            }
        }
    }
}
