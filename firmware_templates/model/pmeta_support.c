/* SPDX-License-Identifier: Apache-2.0
 *
 * Adaptation to the kept support set: the same calls as for samples that come from outside, so the same bits.
 */
#include "pmeta_support.h"

pmeta_status pmeta_support_adapt_sample(uint32_t index, float *outputs, float *loss)
{
    if (index >= pmeta_support_count()) {
        return PMETA_ERROR_COUNT;
    }
    return pmeta_adapt_sample(pmeta_support_sample(index), pmeta_support_target(index), outputs, loss);
}

pmeta_status pmeta_adapt(float *outputs)
{
    pmeta_status status = PMETA_OK;
    pmeta_reset();
    while (status == PMETA_OK && pmeta_step() <= PMETA_STEPS) {
        for (uint32_t index = 0; status == PMETA_OK && index < pmeta_support_count(); index++) {
            float loss;
            status = pmeta_support_adapt_sample(index, outputs, &loss);
        }
        if (status == PMETA_OK) {
            status = pmeta_end_step(pmeta_support_count());
        }
    }
    return status;
}
