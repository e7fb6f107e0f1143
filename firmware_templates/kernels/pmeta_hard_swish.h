/* SPDX-License-Identifier: Apache-2.0
 * HardSwish: y = 0 where x <= -3, x where x >= 3, else x * (x + 3) / 6. */
#ifndef PMETA_HARD_SWISH_H
#define PMETA_HARD_SWISH_H

#include <stdint.h>

/* y may be x. */
void pmeta_hard_swish_forward(int32_t count, const float *x, float *y);

/* In place: g becomes 0 where x <= -3, stays where x >= 3, and becomes g * (x / 3 + 1 / 2) between. */
void pmeta_hard_swish_input_gradient(int32_t count, const float *x, float *g);

#endif
