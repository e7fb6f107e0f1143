/* SPDX-License-Identifier: Apache-2.0
 * Relu: y = +0 where x <= 0, else x. */
#ifndef PMETA_RELU_H
#define PMETA_RELU_H

#include <stdint.h>

/* In place. mask: one bit per element, set where x passes; NULL where no gradient is needed. */
void pmeta_relu_forward(int32_t count, float *x, uint32_t *mask);

/* In place: g becomes +0 where the mask's bit is clear. */
void pmeta_relu_input_gradient(int32_t count, const uint32_t *mask, float *g);

#endif
