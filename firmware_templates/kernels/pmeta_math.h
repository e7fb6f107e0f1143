/* SPDX-License-Identifier: Apache-2.0
 * Arithmetic of docs/numerics.md that several kernels share. */
#ifndef PMETA_MATH_H
#define PMETA_MATH_H

#include <stdint.h>

#define PMETA_LANES 8

/* Combines the lanes of a lane sum: element e of the memory order was added to lane e % PMETA_LANES. */
static inline float pmeta_lanes_total(const float *lane)
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

float pmeta_lane_sum(const float *x, int32_t count);
float pmeta_lane_sum_of_squares(const float *x, int32_t count, float mean); /* of (x - mean) */
float pmeta_lane_sum_of_products(const float *x, const float *y, int32_t count);

float pmeta_sqrt(float x);
float pmeta_exp(float x);
float pmeta_log(float x);

/* In place: x becomes exp(x - max), returns their lane sum; *max is the maximum. */
float pmeta_exp_sum(float *x, int32_t count, float *max);

#endif
