/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_bias.h"

#include "pmeta_inline.h"
#include "pmeta_numerics.h"
#include "pmeta_row_sums.h"

#include <stddef.h>

void pmeta_bias_gradient(int32_t channels, int32_t size, const float *g, const float *gamma_bw, float *grad)
{
    pmeta_row_sums rows = {.count = 0};
    float d[PMETA_SUM_ROWS];
    for (int32_t c = 0; c < channels; c++) {
        if (gamma_bw == NULL || gamma_bw[c] != 0.0f) {
            rows.row[rows.count] = c;
            rows.x[rows.count] = g + c * size;
            rows.y[rows.count++] = NULL;
        }
        if (rows.count == PMETA_SUM_ROWS || (c + 1 == channels && rows.count > 0)) {
            pmeta_row_sums_of(&rows, 0, size, d);
            for (int32_t n = 0; n < rows.count; n++) {
                const int32_t of = rows.row[n];
                grad[of] += (gamma_bw != NULL) ? gamma_bw[of] * d[n] : d[n];
            }
            rows.count = 0;
        }
    }
}
