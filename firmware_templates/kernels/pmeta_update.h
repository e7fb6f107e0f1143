/* SPDX-License-Identifier: Apache-2.0
 * Gradient accumulators: cleared before a step, applied after it. */
#ifndef PMETA_UPDATE_H
#define PMETA_UPDATE_H

#include <stdint.h>

void pmeta_clear(int32_t count, float *grad);

/* updated = w - (step_size / samples) * grad; updated may be w or grad itself. */
void pmeta_update(int32_t count, const float *w, const float *grad, float step_size, uint32_t samples, float *updated);

/* Step sizes per channel: grad[f, c, ...] times out[f] * in[c of the row's group], or one of the two where the other is
 * NULL. grad: (rows, columns, taps); out: (rows,); in: (rows / group_rows * columns,). */
void pmeta_scale_channels(int32_t rows, int32_t columns, int32_t taps, int32_t group_rows, const float *out,
                          const float *in, float *grad);

#endif
