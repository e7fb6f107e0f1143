/* SPDX-License-Identifier: Apache-2.0
 * Conv: its shape, and what it reads. */
#ifndef PMETA_CONV_SHAPE_H
#define PMETA_CONV_SHAPE_H

#include "pmeta_inline.h"
#include "pmeta_rows.h"

#include <stdint.h>

#define PMETA_UINT8 3 /* beside the types of pmeta_rows.h: a sample as it travels */

typedef struct pmeta_conv_shape {
    int32_t channels; /* C */
    int32_t filters;  /* F */
    int32_t groups;   /* of channels and filters: a filter reads the C / groups channels of its group */
    int32_t in_h, in_w;
    int32_t out_h, out_w;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left;
} pmeta_conv_shape;

/* What a convolution reads: a map of some type. */
typedef struct pmeta_conv_input {
    int32_t type;
    const void *map;             /* (C, in_h, in_w) */
    const float *scale, *offset; /* (C,), of PMETA_UINT8 */
} pmeta_conv_input;

/* Element `index` of the map; it belongs to channel c. */
PMETA_INLINE float pmeta_conv_read(const pmeta_conv_input *x, int32_t c, int32_t index)
{
    if (x->type == PMETA_UINT8) {
        return (float)((const uint8_t *)x->map)[index] * x->scale[c] + x->offset[c];
    }
    if (x->type == PMETA_FLOAT16) {
        return pmeta_float_of_float16(((const pmeta_float16 *)x->map)[index]);
    }
    return ((const float *)x->map)[index];
}

#endif
