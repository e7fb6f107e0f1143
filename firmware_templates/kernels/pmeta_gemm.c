/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_gemm.h"

#include "pmeta_numerics.h"

#include <stddef.h>

void pmeta_gemm_forward(const pmeta_gemm_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    for (int32_t f = 0; f < s->features; f++) {
        float sum = (bias != NULL) ? bias[f] : 0.0f;
        for (int32_t c = 0; c < s->channels; c++) {
            sum += w[c] * x[c];
        }
        w += s->channels;
        y[f] = sum;
    }
}

void pmeta_gemm_input_gradient(const pmeta_gemm_shape *s, const float *w, const float *gy, float *gx)
{
    for (int32_t c = 0; c < s->channels; c++) {
        gx[c] = 0.0f;
    }
    for (int32_t f = 0; f < s->features; f++) { /* each gx[c] still sums over f in order */
        for (int32_t c = 0; c < s->channels; c++) {
            gx[c] += w[c] * gy[f];
        }
        w += s->channels;
    }
}

void pmeta_gemm_weight_gradient(const pmeta_gemm_shape *s, const uint16_t *kept, const float *x, const float *gy,
                                const float *gamma_bw, float *grad)
{
    const int32_t rows = (kept != NULL) ? kept[0] : s->channels;
    for (int32_t f = 0; f < s->features; f++) {
        if (gamma_bw == NULL || gamma_bw[f] != 0.0f) {
            for (int32_t n = 0; n < rows; n++) {
                const int32_t c = (kept != NULL) ? kept[1 + n] : n;
                const float d = gy[f] * x[n];
                grad[c] += (gamma_bw != NULL) ? gamma_bw[f] * d : d;
            }
        }
        grad += s->channels;
    }
}
