/* SPDX-License-Identifier: Apache-2.0
 * Conv, gradient of its weights: which of them are summed together. Included by pmeta_conv.h. */
#include "pmeta_vector.h"

/* Filters or channels of a block, at most. */
#define PMETA_CONV_PAIRS ((PMETA_VECTOR > 1) ? 8 : PMETA_BLOCK_HEIGHT)

/* Filters and channels of one group whose gradients are summed together. */
typedef struct pmeta_conv_pairs {
    int32_t filters, channels; /* how many; a block has room for as many or more */
    int32_t filter[PMETA_CONV_PAIRS];
    int32_t channel[PMETA_CONV_PAIRS];
    const float *x[PMETA_CONV_PAIRS]; /* (in_h, in_w) of each channel */
} pmeta_conv_pairs;

/* Of a list that fills a block: its last entry takes the places that are left, and is computed again for nothing. */
PMETA_INLINE int32_t pmeta_conv_filled(int32_t place, int32_t count)
{
    return (place < count) ? place : count - 1;
}
