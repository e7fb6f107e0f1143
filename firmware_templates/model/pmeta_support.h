/* SPDX-License-Identifier: Apache-2.0
 *
 * The kept support set, wherever it lies. Private to lib/pmeta_model.
 */
#ifndef PMETA_SUPPORT_H
#define PMETA_SUPPORT_H

#include "pmeta_model.h"

/* Kept sample number `index` < pmeta_support_count(): its PMETA_SAMPLE_BYTES bytes, and what it teaches. */
const uint8_t *pmeta_support_sample(uint32_t index);
pmeta_target pmeta_support_target(uint32_t index);

#endif
