/* SPDX-License-Identifier: Apache-2.0
 * LeakyRelu: y = alpha * x where x <= 0, else x. */
#ifndef PMETA_LEAKY_RELU_H
#define PMETA_LEAKY_RELU_H

#include <stdint.h>

typedef struct pmeta_leaky_relu_shape {
    int32_t count; /* elements */
    float alpha;
} pmeta_leaky_relu_shape;

/* In place. mask: one bit per element, set where x passes; NULL where no gradient is needed. */
void pmeta_leaky_relu_forward(const pmeta_leaky_relu_shape *s, float *x, uint32_t *mask);

/* In place: g becomes alpha * g where the mask's bit is clear. */
void pmeta_leaky_relu_input_gradient(const pmeta_leaky_relu_shape *s, const uint32_t *mask, float *g);

#endif
