/* SPDX-License-Identifier: Apache-2.0
 * Tanh: the hyperbolic tangent. */
#ifndef PMETA_TANH_H
#define PMETA_TANH_H

#include <stdint.h>

/* In place. */
void pmeta_tanh_forward(int32_t count, float *x);

/* In place: g becomes g * (1 - y * y); y is what the forward pass left. */
void pmeta_tanh_input_gradient(int32_t count, const float *y, float *g);

#endif
