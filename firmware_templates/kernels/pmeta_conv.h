/* SPDX-License-Identifier: Apache-2.0
 * Conv: 2-D convolution of F filters over C channels.
 *
 * Everything is inlined: each layer has functions of its own, in which its shape is a constant (pmeta_layers.c). But
 * where every operation is a call, these share plain loops, which then cost little beside. */
#ifndef PMETA_CONV_H
#define PMETA_CONV_H

#include "pmeta_conv_shape.h"
#include "pmeta_inline.h"

#include <stddef.h>
#include <stdint.h>

/* bias may be NULL */
PMETA_INLINE void pmeta_conv_forward(const pmeta_conv_shape *s, const float *x, /* (C, in_h, in_w) */
                                     const float *w,    /* (F, C / groups, kernel_h, kernel_w) */
                                     const float *bias, /* (F,) */
                                     float *y);         /* (F, out_h, out_w) */

/* The same of a sample as it travels. */
PMETA_INLINE void pmeta_conv_forward_uint8(const pmeta_conv_shape *s, const uint8_t *sample, /* (C, in_h, in_w) */
                                           const float *scale, const float *offset,          /* (C,) */
                                           const float *w, const float *bias, float *y);

/* The same of a float16 map. */
PMETA_INLINE void pmeta_conv_forward_float16(const pmeta_conv_shape *s, const pmeta_float16 *x, const float *w,
                                             const float *bias, float *y);

/* Some filters at a time, in their order, add up: gx starts at +0 with the `first`. */
PMETA_INLINE void pmeta_conv_input_gradient(const pmeta_conv_shape *s, int32_t first, const float *w,
                                            const float *gy, /* (F, out_h, out_w) */
                                            float *gx);      /* (C, in_h, in_w) */

/* Adds to grad (F, C / groups, kernel_h, kernel_w). kept: number of kept channels, then their indices, NULL for all; x
 * holds only those rows, with the forward attention applied, of a type of pmeta_rows.h: decoded (in_h * in_w), NULL for
 * float32. gamma_bw (F,) or NULL. */
PMETA_INLINE void pmeta_conv_weight_gradient(const pmeta_conv_shape *s, const uint16_t *kept, int32_t type,
                                             const void *x, float *decoded, const float *gy, const float *gamma_bw,
                                             float *grad);

#if defined(PMETA_SOFT_FLOAT)
#include "pmeta_conv_plain.h"
#else
#include "pmeta_conv_pairs.h"
#if PMETA_VECTOR > 1
#include "pmeta_conv_filters.h"
#include "pmeta_conv_pixels.h"
#endif
#include "pmeta_conv_forward.h"
#include "pmeta_conv_input_gradient.h"
#include "pmeta_conv_weight_gradient.h"
#endif

#endif
