/* SPDX-License-Identifier: Apache-2.0
 * Add: the sum of two maps, and of the gradients that meet where a map has several readers. */
#ifndef PMETA_ADD_H
#define PMETA_ADD_H

#include <stdint.h>

/* y = a + b, each of `count` elements; y may be a or b. */
void pmeta_add(int32_t count, const float *a, const float *b, float *y);

#endif
