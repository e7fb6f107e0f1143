/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_gemm.h"

#include "pmeta_inline.h"
#include "pmeta_numerics.h"

#include <stddef.h>

/* Outputs that are summed at once. */
#define FEATURES PMETA_BLOCK_HEIGHT

/* y of `features` features, a constant: each sum takes its terms in order. */
PMETA_INLINE void forward_block(int32_t features, int32_t channels, const float *x, const float *w, const float *bias,
                                float *y)
{
    float sum[FEATURES];
    PMETA_UNROLL
    for (int32_t f = 0; f < features; f++) {
        sum[f] = (bias != NULL) ? bias[f] : 0.0f;
    }
    PMETA_UNROLL_SOME
    for (int32_t c = 0; c < channels; c++) {
        PMETA_UNROLL
        for (int32_t f = 0; f < features; f++) {
            sum[f] += w[f * channels + c] * x[c];
        }
    }
    PMETA_UNROLL
    for (int32_t f = 0; f < features; f++) {
        y[f] = sum[f];
    }
}

void pmeta_gemm_forward(const pmeta_gemm_shape *s, const float *x, const float *w, const float *bias, float *y)
{
    int32_t f = 0;
    for (; f + FEATURES <= s->features; f += FEATURES) {
        forward_block(FEATURES, s->channels, x, w + f * s->channels, (bias != NULL) ? bias + f : NULL, y + f);
    }
    for (; f < s->features; f++) {
        forward_block(1, s->channels, x, w + f * s->channels, (bias != NULL) ? bias + f : NULL, y + f);
    }
}

/* gx of `channels` channels, a constant: each sum takes the features in order. */
PMETA_INLINE void input_block(int32_t channels, const pmeta_gemm_shape *s, const float *w, const float *gy, float *gx)
{
    float sum[PMETA_BLOCK_WIDTH] = {0};
    for (int32_t f = 0; f < s->features; f++) {
        PMETA_UNROLL
        for (int32_t c = 0; c < channels; c++) {
            sum[c] += w[c] * gy[f];
        }
        w += s->channels;
    }
    PMETA_UNROLL
    for (int32_t c = 0; c < channels; c++) {
        gx[c] = sum[c];
    }
}

void pmeta_gemm_input_gradient(const pmeta_gemm_shape *s, const float *w, const float *gy, float *gx)
{
    int32_t c = 0;
    for (; c + PMETA_BLOCK_WIDTH <= s->channels; c += PMETA_BLOCK_WIDTH) {
        input_block(PMETA_BLOCK_WIDTH, s, w + c, gy, gx + c);
    }
    for (; c < s->channels; c++) {
        input_block(1, s, w + c, gy, gx + c);
    }
}

void pmeta_gemm_weight_gradient(const pmeta_gemm_shape *s, const uint16_t *kept, const float *x, const float *gy,
                                const float *gamma_bw, float *grad)
{
    const int32_t rows = (kept != NULL) ? kept[0] : s->channels;
    for (int32_t f = 0; f < s->features; f++) {
        const float g = gy[f];
        const float gamma = (gamma_bw != NULL) ? gamma_bw[f] : 0.0f;
        if (gamma_bw == NULL && kept == NULL) {
            PMETA_UNROLL_SOME
            for (int32_t c = 0; c < rows; c++) {
                grad[c] += g * x[c];
            }
        } else if (gamma_bw == NULL || gamma != 0.0f) {
            for (int32_t n = 0; n < rows; n++) {
                const int32_t c = (kept != NULL) ? kept[1 + n] : n;
                const float d = g * x[n];
                grad[c] += (gamma_bw != NULL) ? gamma * d : d;
            }
        }
        grad += s->channels;
    }
}
