/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_input.h"

#include "pmeta_numerics.h"

void pmeta_decode_uint8(int32_t channels, int32_t size, const uint8_t *sample, const float *scale, const float *offset,
                        float *x)
{
    for (int32_t c = 0; c < channels; c++) {
        for (int32_t p = 0; p < size; p++) {
            x[p] = (float)sample[p] * scale[c] + offset[c];
        }
        sample += size;
        x += size;
    }
}
