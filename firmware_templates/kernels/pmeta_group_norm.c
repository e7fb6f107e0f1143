/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_group_norm.h"

#include "pmeta_inline.h"
#include "pmeta_math.h"
#include "pmeta_numerics.h"
#include "pmeta_row_sums.h"
#include "pmeta_rows.h"

#include <stddef.h>

void pmeta_group_norm_normalize(const pmeta_group_norm_shape *s, float *x, float *rstd)
{
    const int32_t groups = s->groups; /* what is stored may overlap with the shape, as far as a compiler knows */
    const int32_t count = s->channels / groups * s->size;
    const float epsilon = s->epsilon;
    for (int32_t group = 0; group < groups; group++) {
        const float mean = pmeta_lane_sum(x, count) / (float)count;
        const float variance = pmeta_lane_sum_of_squares(x, count, mean) / (float)count;
        const float scale = 1.0f / pmeta_sqrt(variance + epsilon);
        PMETA_ELEMENTWISE
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
    const int32_t channels = s->channels;
    const int32_t size = s->size;
    for (int32_t c = 0; c < channels; c++) {
        const float factor = scale[c];
        const float offset = shift[c];
        PMETA_ELEMENTWISE
        for (int32_t p = 0; p < size; p++) {
            z[p] = xhat[p] * factor + offset;
        }
        xhat += size;
        z += size;
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
    const int32_t most = (type == PMETA_FLOAT32) ? PMETA_SUM_ROWS : 1; /* that are decoded at a time */
    const int32_t count = (kept != NULL) ? kept[0] : s->channels;
    pmeta_row_sums rows = {.count = 0};
    float d[PMETA_SUM_ROWS];
    for (int32_t n = 0; n < count; n++) {
        const int32_t c = (kept != NULL) ? kept[1 + n] : n;
        const int skipped = (gamma_fw != NULL && gamma_fw[c] == 0.0f) || (gamma_bw != NULL && gamma_bw[c] == 0.0f);
        if (!skipped) {
            rows.row[rows.count] = c;
            rows.x[rows.count] = g + c * s->size;
            rows.y[rows.count++] = pmeta_read_row(type, s->size, xhat, n, decoded);
        }
        if (rows.count == most || (n + 1 == count && rows.count > 0)) {
            pmeta_row_sums_of(&rows, 1, s->size, d);
            for (int32_t m = 0; m < rows.count; m++) {
                grad[rows.row[m]] += weighted(d[m], rows.row[m], gamma_fw, gamma_bw);
            }
            rows.count = 0;
        }
    }
}

void pmeta_group_norm_input_gradient(const pmeta_group_norm_shape *s, const float *xhat, const float *rstd,
                                     const float *scale, float *g, float *gx)
{
    const int32_t groups = s->groups;
    const int32_t channels = s->channels / groups;
    const int32_t size = s->size;
    const int32_t count = channels * size;
    for (int32_t group = 0; group < groups; group++) {
        for (int32_t c = 0; c < channels; c++) {
            const float factor = scale[c];
            float *of_channel = g + c * size;
            PMETA_ELEMENTWISE
            for (int32_t p = 0; p < size; p++) {
                of_channel[p] = of_channel[p] * factor;
            }
        }
        const float a = pmeta_lane_sum(g, count) / (float)count;
        const float b = pmeta_lane_sum_of_products(g, xhat, count) / (float)count;
        const float factor = rstd[group];
        PMETA_ELEMENTWISE
        for (int32_t e = 0; e < count; e++) {
            gx[e] = ((g[e] - a) - xhat[e] * b) * factor;
        }
        g += count;
        gx += count;
        xhat += count;
        scale += channels;
    }
}
