/* SPDX-License-Identifier: Apache-2.0
 *
 * Adaptation as a state machine: which step, which samples, which weights are where. The same for every model; what
 * depends on the model is in pmeta_plan.c.
 */
#include "pmeta_model.h"

#include "pmeta_numerics.h"
#include "pmeta_plan.h"
#include "pmeta_update.h"

#include <string.h>

/* All static memory beside the arena. */
static struct {
    uint32_t step_minus_1; /* so that zeroed memory is a valid start */
    uint32_t samples;      /* received in this step */
    uint32_t support_crc;  /* of this step's samples and targets so far */
    uint32_t expected_crc; /* of step 1's */
} state;

uint32_t pmeta_numerics(void)
{
    return PMETA_NUMERICS;
}

uint32_t pmeta_step(void)
{
    return state.step_minus_1 + 1u;
}

uint32_t pmeta_samples(void)
{
    return state.samples;
}

static float *at(uint32_t offset)
{
    return pmeta_arena_at(offset);
}

const float *pmeta_weight(uint32_t tensor)
{
    const pmeta_learned *learned = &pmeta_learned_tensors[tensor];
    return (pmeta_step() > learned->first_step) ? at(learned->weight_offset) : learned->initial;
}

float *pmeta_gradient(uint32_t tensor)
{
    const pmeta_learned *learned = &pmeta_learned_tensors[tensor];
    return at((pmeta_step() == learned->first_step) ? learned->weight_offset : learned->gradient_offset);
}

/* Whether the tensor changes at the end of the current step. */
static int learns_now(uint32_t tensor)
{
    return pmeta_learned_tensors[tensor].step_sizes[state.step_minus_1] != 0.0f;
}

void pmeta_restart_step(void)
{
    state.samples = 0;
    state.support_crc = 0;
}

void pmeta_reset(void)
{
    state.step_minus_1 = 0;
    pmeta_restart_step();
}

static void put_u32(uint8_t *bytes, uint32_t value)
{
    for (uint32_t n = 0; n < 4u; n++) {
        bytes[n] = (uint8_t)(value >> (8u * n));
    }
}

static uint32_t get_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

uint32_t pmeta_crc32(uint32_t crc, const uint8_t *bytes, uint32_t count)
{
    static const uint32_t of_nibble[16] = {
        0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
        0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
    };
    crc = ~crc;
    for (uint32_t n = 0; n < count; n++) {
        crc ^= bytes[n];
        crc = (crc >> 4) ^ of_nibble[crc & 15u];
        crc = (crc >> 4) ^ of_nibble[crc & 15u];
    }
    return ~crc;
}

#if PMETA_REGRESSION

static uint32_t target_bits(pmeta_target target, uint32_t index)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &target[index], sizeof bits);
    return bits;
}

int pmeta_target_is_possible(pmeta_target target)
{
    for (uint32_t n = 0; n < PMETA_WAYS; n++) {
        if ((target_bits(target, n) & 0x7f800000u) == 0x7f800000u) { /* infinite or NaN */
            return 0;
        }
    }
    return 1;
}

static uint32_t target_crc32(uint32_t crc, pmeta_target target)
{
    for (uint32_t n = 0; n < PMETA_WAYS; n++) {
        uint8_t bytes[4];
        put_u32(bytes, target_bits(target, n));
        crc = pmeta_crc32(crc, bytes, sizeof bytes);
    }
    return crc;
}

#else

int pmeta_target_is_possible(pmeta_target target)
{
    return target < PMETA_WAYS;
}

static uint32_t target_crc32(uint32_t crc, pmeta_target target)
{
    uint8_t bytes[4];
    put_u32(bytes, target);
    return pmeta_crc32(crc, bytes, sizeof bytes);
}

#endif

pmeta_status pmeta_adapt_sample(const uint8_t *sample, pmeta_target target, float *logits, float *loss)
{
    if (pmeta_step() > PMETA_STEPS) {
        return PMETA_ERROR_FINISHED;
    }
    if (!pmeta_target_is_possible(target)) {
        return PMETA_ERROR_TARGET;
    }
    if (state.samples == 0u) {
        for (uint32_t t = 0; t < PMETA_TENSORS; t++) {
            if (learns_now(t)) {
                pmeta_clear((int32_t)pmeta_learned_tensors[t].count, pmeta_gradient(t));
            }
        }
    }
    state.support_crc = pmeta_crc32(state.support_crc, sample, PMETA_SAMPLE_BYTES);
    state.support_crc = target_crc32(state.support_crc, target);
    pmeta_plan_adapt(pmeta_step(), state.samples, sample, target, logits, loss);
    state.samples++;
    return PMETA_OK;
}

pmeta_status pmeta_end_step(uint32_t samples)
{
    if (pmeta_step() > PMETA_STEPS) {
        return PMETA_ERROR_FINISHED;
    }
    if (samples == 0u || samples != state.samples) {
        return PMETA_ERROR_COUNT;
    }
    if (pmeta_step() == 1u) {
        state.expected_crc = state.support_crc;
    } else if (state.support_crc != state.expected_crc) {
        pmeta_restart_step();
        return PMETA_ERROR_SUPPORT;
    }
    pmeta_plan_end_step(pmeta_step(), samples);
    for (uint32_t t = 0; t < PMETA_TENSORS; t++) {
        if (learns_now(t)) {
            const pmeta_learned *learned = &pmeta_learned_tensors[t];
            const float step_size = learned->step_sizes[state.step_minus_1];
            pmeta_update((int32_t)learned->count, pmeta_weight(t), pmeta_gradient(t), step_size, samples,
                         at(learned->weight_offset));
        }
    }
    state.step_minus_1++;
    pmeta_restart_step();
    return PMETA_OK;
}

void pmeta_predict(const uint8_t *sample, float *logits)
{
    pmeta_plan_predict(sample, logits);
}

uint32_t pmeta_tensor_bytes(uint32_t tensor)
{
    return (tensor < PMETA_TENSORS) ? 4u * pmeta_learned_tensors[tensor].count : 0u;
}

/* Little-endian bytes of element `index`, NaNs canonical. */
static void element_bytes(uint32_t tensor, uint32_t index, uint8_t bytes[4])
{
    const float value = pmeta_weight(tensor)[index];
    uint32_t bits = 0x7fc00000u;
    if (value == value) {
        __builtin_memcpy(&bits, &value, sizeof bits);
    }
    put_u32(bytes, bits);
}

pmeta_status pmeta_tensor_read(uint32_t tensor, uint32_t offset, uint8_t *bytes, uint32_t count)
{
    const uint32_t size = pmeta_tensor_bytes(tensor);
    if (offset > size || count > size - offset) {
        return PMETA_ERROR_TENSOR;
    }
    for (uint32_t n = 0; n < count; n++) {
        uint8_t element[4];
        element_bytes(tensor, (offset + n) / 4u, element);
        bytes[n] = element[(offset + n) % 4u];
    }
    return PMETA_OK;
}

pmeta_status pmeta_tensor_crc32(uint32_t tensor, uint32_t *crc)
{
    if (tensor >= PMETA_TENSORS) {
        return PMETA_ERROR_TENSOR;
    }
    *crc = 0;
    for (uint32_t index = 0; index < pmeta_learned_tensors[tensor].count; index++) {
        uint8_t element[4];
        element_bytes(tensor, index, element);
        *crc = pmeta_crc32(*crc, element, sizeof element);
    }
    return PMETA_OK;
}

/* Saved state: firmware id (16), step (4), support checksum (4), all tensors, checksum of all before it (4). */
#define HEADER_BYTES 24u

pmeta_status pmeta_save(uint8_t *saved, uint32_t capacity)
{
    if (state.samples != 0u) {
        return PMETA_ERROR_STATE;
    }
    if (capacity < PMETA_STATE_BYTES) {
        return PMETA_ERROR_CAPACITY;
    }
    memcpy(saved, pmeta_firmware_id, sizeof pmeta_firmware_id);
    put_u32(saved + 16, pmeta_step());
    put_u32(saved + 20, state.expected_crc);
    uint32_t used = HEADER_BYTES;
    for (uint32_t t = 0; t < PMETA_TENSORS; t++) {
        (void)pmeta_tensor_read(t, 0, saved + used, pmeta_tensor_bytes(t)); /* in range by construction */
        used += pmeta_tensor_bytes(t);
    }
    put_u32(saved + used, pmeta_crc32(0, saved, used));
    return PMETA_OK;
}

pmeta_status pmeta_load(const uint8_t *saved, uint32_t count)
{
    const uint32_t body = PMETA_STATE_BYTES - 4u;
    if (count != PMETA_STATE_BYTES || memcmp(saved, pmeta_firmware_id, sizeof pmeta_firmware_id) != 0 ||
        get_u32(saved + body) != pmeta_crc32(0, saved, body)) {
        return PMETA_ERROR_STATE;
    }
    const uint32_t step = get_u32(saved + 16);
    if (step < 1u || step > PMETA_STEPS + 1u) {
        return PMETA_ERROR_STATE;
    }
    state.step_minus_1 = step - 1u;
    state.expected_crc = get_u32(saved + 20);
    pmeta_restart_step();
    const uint8_t *bytes = saved + HEADER_BYTES;
    for (uint32_t t = 0; t < PMETA_TENSORS; t++) {
        const pmeta_learned *learned = &pmeta_learned_tensors[t];
        for (uint32_t n = 0; n < learned->count && step > learned->first_step; n++) {
            const uint32_t bits = get_u32(bytes + 4u * n);
            __builtin_memcpy(at(learned->weight_offset) + n, &bits, sizeof bits);
        }
        bytes += pmeta_tensor_bytes(t);
    }
    return PMETA_OK;
}
