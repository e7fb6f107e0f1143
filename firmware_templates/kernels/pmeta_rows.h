/* SPDX-License-Identifier: Apache-2.0
 * Maps as they are stored: rows of equal length, one per channel; of a vector there is one row. */
#ifndef PMETA_ROWS_H
#define PMETA_ROWS_H

#include "pmeta_float16.h"

#include <stdint.h>

#define PMETA_FLOAT32 0
#define PMETA_FLOAT16 1 /* IEEE binary16 */
#define PMETA_INT8    2 /* a row is its float32 scale, then the bytes, filled up to a multiple of four */

typedef int8_t pmeta_int8;

/* A row of `size` elements. float32 is read where it lies, anything else is decoded into `decoded` (size). */
const float *pmeta_read_row(int32_t type, int32_t size, const void *rows, int32_t row, float *decoded);
void pmeta_write_row(int32_t type, int32_t size, const float *values, void *rows, int32_t row);

/* All rows of float16 or int8 as x (count, size). */
void pmeta_decode_rows(int32_t type, int32_t count, int32_t size, const void *rows, float *x);

/* From one type to another, through `decoded` (size), which is NULL for float32. */
void pmeta_convert_rows(int32_t count, int32_t size, int32_t from_type, const void *from, float *decoded, int32_t type,
                        void *rows);

/* x (count, size) becomes what it would be after encoding and decoding. */
void pmeta_round_rows(int32_t type, int32_t count, int32_t size, float *x);

#endif
