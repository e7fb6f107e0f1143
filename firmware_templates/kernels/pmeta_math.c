/* SPDX-License-Identifier: Apache-2.0 */
#include "pmeta_math.h"

#include "pmeta_bits.h"
#include "pmeta_inline.h"
#include "pmeta_numerics.h"
#include "pmeta_vector.h"

#define VECTORS (PMETA_LANES / PMETA_VECTOR) /* of lanes */

float pmeta_lane_sum(const float *x, int32_t count)
{
    pmeta_floats vector[VECTORS] = {0};
    float lane[PMETA_LANES];
    int32_t e = 0;
    for (; e + PMETA_LANES <= count; e += PMETA_LANES) {
        PMETA_UNROLL
        for (int32_t v = 0; v < VECTORS; v++) {
            vector[v] += pmeta_vector_load(x + e + v * PMETA_VECTOR);
        }
    }
    PMETA_UNROLL
    for (int32_t v = 0; v < VECTORS; v++) {
        pmeta_vector_store(lane + v * PMETA_VECTOR, vector[v]);
    }
    PMETA_UNROLL
    for (int32_t j = 0; j < PMETA_LANES - 1; j++) {
        if (e + j < count) {
            lane[j] += x[e + j];
        }
    }
    return pmeta_lanes_total(lane);
}

float pmeta_lane_sum_of_squares(const float *x, int32_t count, float mean)
{
    pmeta_floats vector[VECTORS] = {0};
    float lane[PMETA_LANES];
    int32_t e = 0;
    for (; e + PMETA_LANES <= count; e += PMETA_LANES) {
        PMETA_UNROLL
        for (int32_t v = 0; v < VECTORS; v++) {
            const pmeta_floats d = pmeta_vector_load(x + e + v * PMETA_VECTOR) - mean;
            vector[v] += d * d;
        }
    }
    PMETA_UNROLL
    for (int32_t v = 0; v < VECTORS; v++) {
        pmeta_vector_store(lane + v * PMETA_VECTOR, vector[v]);
    }
    PMETA_UNROLL
    for (int32_t j = 0; j < PMETA_LANES - 1; j++) {
        if (e + j < count) {
            const float d = x[e + j] - mean;
            lane[j] += d * d;
        }
    }
    return pmeta_lanes_total(lane);
}

float pmeta_lane_sum_of_products(const float *x, const float *y, int32_t count)
{
    pmeta_floats vector[VECTORS] = {0};
    float lane[PMETA_LANES];
    int32_t e = 0;
    for (; e + PMETA_LANES <= count; e += PMETA_LANES) {
        PMETA_UNROLL
        for (int32_t v = 0; v < VECTORS; v++) {
            const int32_t n = e + v * PMETA_VECTOR;
            vector[v] += pmeta_vector_load(x + n) * pmeta_vector_load(y + n);
        }
    }
    PMETA_UNROLL
    for (int32_t v = 0; v < VECTORS; v++) {
        pmeta_vector_store(lane + v * PMETA_VECTOR, vector[v]);
    }
    PMETA_UNROLL
    for (int32_t j = 0; j < PMETA_LANES - 1; j++) {
        if (e + j < count) {
            lane[j] += x[e + j] * y[e + j];
        }
    }
    return pmeta_lanes_total(lane);
}

float pmeta_sqrt(float x)
{
    return __builtin_sqrtf(x);
}

float pmeta_exp(float x)
{
    if (x != x) {
        return x;
    }
    if (x > 0x1.62e42ep+6f) {
        return pmeta_float_from_bits(0x7f800000u);
    }
    if (x < -0x1.9fe368p+6f) {
        return 0.0f;
    }
    const float n = (x * 0x1.715476p+0f + 12582912.0f) - 12582912.0f; /* nearest integer */
    const float r = (x - n * 0x1.62e4p-1f) - n * 0x1.7f7d1cp-20f;
    float q = 0x1.6db426p-10f;
    q = q * r + 0x1.123b56p-7f;
    q = q * r + 0x1.55545ep-5f;
    q = q * r + 0x1.55548ep-3f;
    q = q * r + 0x1.000000p-1f;
    const float y = (q * (r * r) + r) + 1.0f;
    /* Two factors, because 2^n itself may overflow or be subnormal. */
    const int32_t exponent = (int32_t)n;
    const int32_t half = (exponent >= 0) ? exponent / 2 : -((1 - exponent) / 2);
    const float first = pmeta_float_from_bits((uint32_t)(half + 127) << 23);
    const float second = pmeta_float_from_bits((uint32_t)(exponent - half + 127) << 23);
    return (y * first) * second;
}

float pmeta_log(float x)
{
    if (x != x || x < 0.0f) {
        return pmeta_float_from_bits(0x7fc00000u);
    }
    if (x == 0.0f) {
        return pmeta_float_from_bits(0xff800000u);
    }
    if (x > 0x1.fffffep+127f) {
        return x;
    }
    int32_t exponent = 0;
    if (x < 0x1p-126f) {
        x = x * 0x1p+23f;
        exponent = -23;
    }
    const int32_t bits = (int32_t)pmeta_bits_from_float(x);
    const int32_t offset = bits - 0x3f3504f3; /* of the square root of one half */
    const int32_t e = (offset >= 0) ? offset / 0x800000 : -((0x7fffff - offset) / 0x800000);
    const float m = pmeta_float_from_bits((uint32_t)(bits - e * 0x800000));
    exponent += e;
    const float f = m - 1.0f;
    float q = 0x1.1b4be2p-4f;
    q = q * f + -0x1.e2fc18p-4f;
    q = q * f + 0x1.e65668p-4f;
    q = q * f + -0x1.fb40a4p-4f;
    q = q * f + 0x1.233238p-3f;
    q = q * f + -0x1.5562f0p-3f;
    q = q * f + 0x1.99a54cp-3f;
    q = q * f + -0x1.ffffeep-3f;
    q = q * f + 0x1.555546p-2f;
    const float s = f * f;
    const float scale = (float)exponent;
    float r = (s * f) * q;
    r = r + scale * 0x1.7f7d1cp-20f;
    r = r - 0.5f * s;
    r = r + f;
    return r + scale * 0x1.62e4p-1f;
}

float pmeta_exp_sum(float *x, int32_t count, float *max)
{
    float largest = x[0];
    for (int32_t j = 1; j < count; j++) {
        if (x[j] > largest) {
            largest = x[j];
        }
    }
    for (int32_t j = 0; j < count; j++) {
        x[j] = pmeta_exp(x[j] - largest);
    }
    *max = largest;
    return pmeta_lane_sum(x, count);
}
