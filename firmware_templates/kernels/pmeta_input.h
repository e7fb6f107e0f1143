/* SPDX-License-Identifier: Apache-2.0
 * The sample as it travels, made into the first map. */
#ifndef PMETA_INPUT_H
#define PMETA_INPUT_H

#include <stdint.h>

/* x = u * scale[c] + offset[c] */
void pmeta_decode_uint8(int32_t channels, int32_t size, const uint8_t *sample, /* (C, H*W) */
                        const float *scale, const float *offset,               /* (C,) */
                        float *x);                                             /* (C, H*W) */

#endif
