/* SPDX-License-Identifier: Apache-2.0
 * Concat: several maps one after the other, one call for each. */
#ifndef PMETA_CONCAT_H
#define PMETA_CONCAT_H

#include <stdint.h>

/* Copies the `count` elements of an input x to y, from element `begin` on. */
void pmeta_concat_forward(int32_t begin, int32_t count, const float *x, /* (count,) */
                          float *y);                                    /* at least (begin + count,) */

/* Copies the `count` elements of gy from `begin` on to gx. */
void pmeta_concat_input_gradient(int32_t begin, int32_t count, const float *gy, /* at least (begin + count,) */
                                 float *gx);                                    /* (count,) */

#endif
