/* SPDX-License-Identifier: Apache-2.0
 * Arithmetic of docs/numerics.md that several kernels share. */
#ifndef PMETA_MATH_H
#define PMETA_MATH_H

#include <stdint.h>

#define PMETA_LANES 8

/* Running lane sum: add the elements of one memory order by turns into the lanes, then combine. */
typedef struct pmeta_lanes {
    float lane[PMETA_LANES];
} pmeta_lanes;

float pmeta_lanes_total(const pmeta_lanes *lanes);
float pmeta_lane_sum(const float *x, int32_t count);

float pmeta_sqrt(float x);
float pmeta_exp(float x);
float pmeta_log(float x);

/* In place: x becomes exp(x - max), returns their lane sum; *max is the maximum. */
float pmeta_exp_sum(float *x, int32_t count, float *max);

#endif
