/* SPDX-License-Identifier: Apache-2.0
 * Loss head: softmax cross-entropy of one sample. */
#ifndef PMETA_SOFTMAX_CROSS_ENTROPY_H
#define PMETA_SOFTMAX_CROSS_ENTROPY_H

#include <stdint.h>

/* Returns the loss; g (ways,) becomes its gradient with respect to the logits (ways,). */
float pmeta_softmax_cross_entropy(int32_t ways, const float *logits, int32_t label, float *g);

#endif
