/* SPDX-License-Identifier: Apache-2.0
 * Loss head: mean squared error of one sample. */
#ifndef PMETA_MEAN_SQUARED_ERROR_H
#define PMETA_MEAN_SQUARED_ERROR_H

#include <stdint.h>

/* Returns the mean over the outputs (count,) of their squared distance from the target (count,); g (count,) becomes its
 * gradient with respect to the outputs. */
float pmeta_mean_squared_error(int32_t count, const float *outputs, const float *target, float *g);

#endif
