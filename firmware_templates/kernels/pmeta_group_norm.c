/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_group_norm.h"

#include "pmeta_math.h"
#include "pmeta_numerics.h"
#include "pmeta_rows.h"

#include <stddef.h>

/* 1 / standard deviation of the group x, whose mean is given. */
static float reciprocal_deviation(const float *x, int32_t count, float mean, float epsilon)
{
    pmeta_lanes lanes = {{0}};
    for (int32_t e = 0; e < count; e++) {
        const float d = x[e] - mean;
        lanes.lane[e % PMETA_LANES] += d * d;
    }
    const float variance = pmeta_lanes_total(&lanes) / (float)count;
    return 1.0f / pmeta_sqrt(variance + epsilon);
}

void pmeta_group_norm_normalize(const pmeta_group_norm_shape *s, float *x, float *rstd)
{
    const int32_t count = s->channels / s->groups * s->size;
    for (int32_t group = 0; group < s->groups; group++) {
        const float mean = pmeta_lane_sum(x, count) / (float)count;
        const float scale = reciprocal_deviation(x, count, mean, s->epsilon);
        for (int32_t e = 0; e < count; e++) {
            x[e] = (x[e] - mean) * scale;
        }
        if (rstd != NULL) {
            rstd[group] = scale;
        }
        x += count;
    }
}

void pmeta_group_norm_affine(const pmeta_group_norm_shape *s, const float *xhat, const float *scale, const float *shift,
                             float *z)
{
    for (int32_t c = 0; c < s->channels; c++) {
        for (int32_t p = 0; p < s->size; p++) {
            z[p] = xhat[p] * scale[c] + shift[c];
        }
        xhat += s->size;
        z += s->size;
    }
}

/* Factor of channel c: both attentions, one of them, or none (1 is never multiplied). */
static float weighted(float d, int32_t c, const float *gamma_fw, const float *gamma_bw)
{
    if (gamma_fw != NULL && gamma_bw != NULL) {
        return (gamma_fw[c] * gamma_bw[c]) * d;
    }
    if (gamma_fw != NULL) {
        return gamma_fw[c] * d;
    }
    return (gamma_bw != NULL) ? gamma_bw[c] * d : d;
}

void pmeta_group_norm_scale_gradient(const pmeta_group_norm_shape *s, const uint16_t *kept, int32_t type,
                                     const void *xhat, float *decoded, const float *g, const float *gamma_fw,
                                     const float *gamma_bw, float *grad)
{
    const int32_t rows = (kept != NULL) ? kept[0] : s->channels;
    for (int32_t n = 0; n < rows; n++) {
        const int32_t c = (kept != NULL) ? kept[1 + n] : n;
        const int skipped = (gamma_fw != NULL && gamma_fw[c] == 0.0f) || (gamma_bw != NULL && gamma_bw[c] == 0.0f);
        if (!skipped) {
            const float *row = pmeta_read_row(type, s->size, xhat, n, decoded);
            float d = 0.0f;
            for (int32_t p = 0; p < s->size; p++) {
                d += g[c * s->size + p] * row[p];
            }
            grad[c] += weighted(d, c, gamma_fw, gamma_bw);
        }
    }
}

void pmeta_group_norm_input_gradient(const pmeta_group_norm_shape *s, const float *xhat, const float *rstd,
                                     const float *scale, float *g, float *gx)
{
    const int32_t channels = s->channels / s->groups;
    const int32_t count = channels * s->size;
    for (int32_t group = 0; group < s->groups; group++) {
        pmeta_lanes sum = {{0}};
        pmeta_lanes product = {{0}};
        int32_t e = 0;
        for (int32_t c = 0; c < channels; c++) {
            for (int32_t p = 0; p < s->size; p++, e++) {
                g[e] = g[e] * scale[c];
                sum.lane[e % PMETA_LANES] += g[e];
                product.lane[e % PMETA_LANES] += g[e] * xhat[e];
            }
        }
        const float a = pmeta_lanes_total(&sum) / (float)count;
        const float b = pmeta_lanes_total(&product) / (float)count;
        for (e = 0; e < count; e++) {
            gx[e] = ((g[e] - a) - xhat[e] * b) * rstd[group];
        }
        g += count;
        gx += count;
        xhat += count;
        scale += channels;
    }
}
