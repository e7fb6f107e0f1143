/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_add.h"

#include "pmeta_numerics.h"

void pmeta_add(int32_t count, const float *a, const float *b, float *y)
{
    for (int32_t e = 0; e < count; e++) {
        y[e] = a[e] + b[e];
    }
}
