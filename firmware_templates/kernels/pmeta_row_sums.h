/* SPDX-License-Identifier: Apache-2.0
 * Sums of rows, each from +0 and in order: several at a time, a lane for each. */
#ifndef PMETA_ROW_SUMS_H
#define PMETA_ROW_SUMS_H

#include "pmeta_vector.h"

#include <stddef.h>
#include <stdint.h>

#define PMETA_SUM_ROWS PMETA_VECTOR

/* Rows to sum: the elements of x, or with y the products of both. */
typedef struct pmeta_row_sums {
    int32_t count;               /* 1..PMETA_SUM_ROWS */
    int32_t row[PMETA_SUM_ROWS]; /* what the caller knows them by */
    const float *x[PMETA_SUM_ROWS];
    const float *y[PMETA_SUM_ROWS]; /* all NULL or none */
} pmeta_row_sums;

#if PMETA_VECTOR > 1
/* Elements p, p + 1, ... of all rows: v[n] holds element p + n, a lane for each row. */
PMETA_INLINE void pmeta_row_sums_terms(const pmeta_row_sums *rows, int products, int32_t p, pmeta_floats *v)
{
    PMETA_UNROLL
    for (int32_t lane = 0; lane < PMETA_VECTOR; lane++) {
        v[lane] = pmeta_vector_load(rows->x[lane] + p);
        if (products) {
            v[lane] *= pmeta_vector_load(rows->y[lane] + p);
        }
    }
    pmeta_vector_transpose(v);
}
#endif

/* sum (count); `products` is a constant. */
PMETA_INLINE void pmeta_row_sums_of(pmeta_row_sums *rows, int products, int32_t size, float *sum)
{
    int32_t p = 0;
    float lanes[PMETA_SUM_ROWS] = {0};
#if PMETA_VECTOR > 1
    pmeta_floats total = {0};
    for (int32_t n = rows->count; n < PMETA_SUM_ROWS; n++) {
        rows->x[n] = rows->x[0];
        rows->y[n] = rows->y[0];
    }
    for (; p + PMETA_VECTOR <= size; p += PMETA_VECTOR) {
        pmeta_floats v[PMETA_VECTOR];
        pmeta_row_sums_terms(rows, products, p, v);
        PMETA_UNROLL
        for (int32_t n = 0; n < PMETA_VECTOR; n++) {
            total += v[n];
        }
    }
    pmeta_vector_store(lanes, total);
#endif
    for (int32_t n = 0; n < rows->count; n++) {
        const float *x = rows->x[n];
        const float *y = rows->y[n];
        float d = lanes[n];
        PMETA_UNROLL_SOME
        for (int32_t q = p; q < size; q++) {
            d += products ? x[q] * y[q] : x[q];
        }
        sum[n] = d;
    }
}

#endif
