/* SPDX-License-Identifier: Apache-2.0
 *
 * The support set in RAM: copies of samples and of what they teach.
 */
#include "pmeta_plan.h"
#include "pmeta_support.h"

#include <string.h>

#if PMETA_REGRESSION
typedef struct kept_target {
    float numbers[PMETA_WAYS];
} kept_target;
#else
typedef struct kept_target {
    uint32_t label;
} kept_target;
#endif

/* Its size is the same on every core: no member is wider than 4 bytes, none is a pointer. */
static struct {
    uint32_t count;
    kept_target targets[PMETA_SUPPORT_SAMPLES];
    uint8_t samples[PMETA_SUPPORT_BYTES - 4u - PMETA_SUPPORT_SAMPLES * sizeof(kept_target)];
} support;

typedef char check_room[(sizeof support.samples >= PMETA_SUPPORT_SAMPLES * PMETA_SAMPLE_BYTES) ? 1 : -1];
typedef char check_size[(sizeof support == PMETA_SUPPORT_BYTES) ? 1 : -1];

pmeta_status pmeta_support_add(const uint8_t *sample, pmeta_target target)
{
    if (support.count == PMETA_SUPPORT_SAMPLES) {
        return PMETA_ERROR_CAPACITY;
    }
    if (!pmeta_target_is_possible(target)) {
        return PMETA_ERROR_TARGET;
    }
    kept_target *kept = &support.targets[support.count];
#if PMETA_REGRESSION
    memcpy(kept->numbers, target, sizeof kept->numbers);
#else
    kept->label = target;
#endif
    memcpy(support.samples + support.count * PMETA_SAMPLE_BYTES, sample, PMETA_SAMPLE_BYTES);
    support.count++;
    return PMETA_OK;
}

void pmeta_support_clear(void)
{
    support.count = 0;
}

uint32_t pmeta_support_count(void)
{
    return support.count;
}

const uint8_t *pmeta_support_sample(uint32_t index)
{
    return support.samples + index * PMETA_SAMPLE_BYTES;
}

pmeta_target pmeta_support_target(uint32_t index)
{
#if PMETA_REGRESSION
    return support.targets[index].numbers;
#else
    return support.targets[index].label;
#endif
}
