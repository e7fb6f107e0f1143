/* SPDX-License-Identifier: Apache-2.0
 * Sigmoid: y = 1 / (1 + exp(-x)). */
#ifndef PMETA_SIGMOID_H
#define PMETA_SIGMOID_H

#include <stdint.h>

/* In place. */
void pmeta_sigmoid_forward(int32_t count, float *x);

/* In place: g becomes g * (y * (1 - y)); y is what the forward pass left. */
void pmeta_sigmoid_input_gradient(int32_t count, const float *y, float *g);

#endif
