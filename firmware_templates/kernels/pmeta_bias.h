/* SPDX-License-Identifier: Apache-2.0
 * Per-channel sums: the gradient of a bias, and of a normalization's shift. */
#ifndef PMETA_BIAS_H
#define PMETA_BIAS_H

#include <stdint.h>

/* Adds to grad (C,) the sum of g (C, size) over each channel; gamma_bw (C,) or NULL. */
void pmeta_bias_gradient(int32_t channels, int32_t size, const float *g, const float *gamma_bw, float *grad);

#endif
