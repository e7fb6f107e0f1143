/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_rows.h"

#include "pmeta_bits.h"
#include "pmeta_float16.h"
#include "pmeta_numerics.h"

#include <string.h>

/* value without its lowest `shift` bits, rounded half to even; the carry may reach the exponent, as it should. */
static uint32_t rounded(uint32_t value, uint32_t shift)
{
    const uint32_t half = (uint32_t)1 << (shift - 1);
    const uint32_t rest = value & (half | (half - 1));
    const uint32_t quotient = value >> shift;
    return quotient + (rest > half || (rest == half && (quotient & 1u)));
}

static pmeta_float16 float16_of(float x)
{
    const uint32_t bits = pmeta_bits_from_float(x);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u; /* NaN */
    } else if (magnitude >= 0x47800000u) {
        half = 0x7c00u; /* 2^16 and more: infinity */
    } else if (magnitude >= 0x38800000u) {
        half = rounded(magnitude - 0x38000000u, 13); /* from 2^-14: the exponent's bias is 15 instead of 127 */
    } else if (magnitude > 0x33000000u) {
        half = rounded((magnitude & 0x7fffffu) | 0x800000u, 126 - (magnitude >> 23)); /* subnormal */
    } else {
        half = 0; /* at most half of the smallest subnormal, 2^-24 */
    }
    return (pmeta_float16)(sign | half);
}

static int32_t int8_row_bytes(int32_t size)
{
    return 4 + (size + 3) / 4 * 4;
}

/* The nearest integer of -127..127, half to even; 0 for NaN. */
static pmeta_int8 int8_of(float x)
{
    const float nearest = (x + 12582912.0f) - 12582912.0f; /* 1.5 * 2^23: floats beside it are one apart */
    if (nearest != nearest) {
        return 0;
    }
    return (nearest >= 127.0f) ? 127 : (nearest <= -127.0f) ? -127 : (pmeta_int8)nearest;
}

static float int8_scale(int32_t size, const float *values)
{
    float largest = 0.0f;
    for (int32_t e = 0; e < size; e++) {
        const float magnitude = (values[e] < 0.0f) ? -values[e] : values[e];
        largest = (magnitude > largest) ? magnitude : largest;
    }
    return largest / 127.0f;
}

static pmeta_int8 quotient(float x, float scale)
{
    return (scale == 0.0f) ? 0 : int8_of(x / scale);
}

static void write_int8(int32_t size, const float *values, void *row)
{
    const float scale = int8_scale(size, values);
    pmeta_int8 *quotients = (pmeta_int8 *)row + sizeof scale;
    __builtin_memcpy(row, &scale, sizeof scale);
    for (int32_t e = 0; e < size; e++) {
        quotients[e] = quotient(values[e], scale);
    }
}

static void read_int8(int32_t size, const void *row, float *values)
{
    float scale;
    const pmeta_int8 *quotients = (const pmeta_int8 *)row + sizeof scale;
    __builtin_memcpy(&scale, row, sizeof scale);
    for (int32_t e = 0; e < size; e++) {
        values[e] = (float)quotients[e] * scale;
    }
}

const float *pmeta_read_row(int32_t type, int32_t size, const void *rows, int32_t row, float *decoded)
{
    if (type == PMETA_FLOAT16) {
        const pmeta_float16 *halves = (const pmeta_float16 *)rows + row * size;
        for (int32_t e = 0; e < size; e++) {
            decoded[e] = pmeta_float_of_float16(halves[e]);
        }
        return decoded;
    }
    if (type == PMETA_INT8) {
        read_int8(size, (const pmeta_int8 *)rows + row * int8_row_bytes(size), decoded);
        return decoded;
    }
    return (const float *)rows + row * size;
}

void pmeta_write_row(int32_t type, int32_t size, const float *values, void *rows, int32_t row)
{
    if (type == PMETA_FLOAT16) {
        pmeta_float16 *halves = (pmeta_float16 *)rows + row * size;
        for (int32_t e = 0; e < size; e++) {
            halves[e] = float16_of(values[e]);
        }
    } else if (type == PMETA_INT8) {
        write_int8(size, values, (pmeta_int8 *)rows + row * int8_row_bytes(size));
    } else {
        memcpy((float *)rows + row * size, values, (uint32_t)size * sizeof *values);
    }
}

void pmeta_decode_rows(int32_t type, int32_t count, int32_t size, const void *rows, float *x)
{
    for (int32_t row = 0; row < count; row++) {
        (void)pmeta_read_row(type, size, rows, row, x + row * size);
    }
}

void pmeta_convert_rows(int32_t count, int32_t size, int32_t from_type, const void *from, float *decoded, int32_t type,
                        void *rows)
{
    for (int32_t row = 0; row < count; row++) {
        pmeta_write_row(type, size, pmeta_read_row(from_type, size, from, row, decoded), rows, row);
    }
}

void pmeta_round_rows(int32_t type, int32_t count, int32_t size, float *x)
{
    for (int32_t row = 0; row < count; row++) {
        const float scale = (type == PMETA_INT8) ? int8_scale(size, x) : 0.0f;
        for (int32_t e = 0; e < size; e++) {
            x[e] =
                (type == PMETA_INT8) ? (float)quotient(x[e], scale) * scale : pmeta_float_of_float16(float16_of(x[e]));
        }
        x += size;
    }
}
