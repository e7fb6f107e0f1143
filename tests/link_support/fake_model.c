/* SPDX-License-Identifier: Apache-2.0
 *
 * A stand-in for lib/pmeta_model: the same calls and refusals, but instead of a network a CRC. Every byte of every
 * sample, label and step changes all later results, so nothing the link gets wrong can stay hidden.
 * tests/link_support/fake_library.py computes the same in Python.
 */
#include "pmeta_plan.h"

#define FIRST_TENSOR_ELEMENTS  3u
#define SECOND_TENSOR_ELEMENTS 300u

const uint8_t pmeta_firmware_id[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static uint32_t weights, gradient, first_gradient, step, samples;

uint32_t pmeta_crc32(uint32_t crc, const uint8_t *bytes, uint32_t count)
{
    crc = ~crc;
    for (uint32_t i = 0u; i < count; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1u) != 0u ? crc >> 1 ^ 0xedb88320u : crc >> 1;
        }
    }
    return ~crc;
}

void pmeta_reset(void)
{
    weights = 0x12345678u;
    step = 1u;
    pmeta_restart_step();
}

static uint32_t forward(const uint8_t *sample, float *logits)
{
    const uint32_t crc = pmeta_crc32(weights, sample, PMETA_SAMPLE_BYTES);
    for (uint32_t i = 0u; i < PMETA_WAYS; i++) {
        logits[i] = (float)((crc ^ i * 2654435761u) >> 8);
    }
    return crc;
}

/* Its bytes in memory, which are little-endian here. */
static uint32_t target_crc32(uint32_t crc, pmeta_target target)
{
#if PMETA_REGRESSION
    return pmeta_crc32(crc, (const uint8_t *)target, 4u * PMETA_WAYS);
#else
    return pmeta_crc32(crc, (const uint8_t *)&target, sizeof target);
#endif
}

int pmeta_target_is_possible(pmeta_target target)
{
#if PMETA_REGRESSION
    for (uint32_t i = 0u; i < PMETA_WAYS; i++) {
        if (!(target[i] - target[i] == 0.0f)) { /* infinite or NaN */
            return 0;
        }
    }
    return 1;
#else
    return target < PMETA_WAYS;
#endif
}

pmeta_status pmeta_adapt_sample(const uint8_t *sample, pmeta_target target, float *logits, float *loss)
{
    if (!pmeta_target_is_possible(target)) {
        return PMETA_ERROR_TARGET;
    }
    if (step > PMETA_STEPS) {
        return PMETA_ERROR_FINISHED;
    }
    *loss = (float)(forward(sample, logits) & 0xffffu) + (float)(target_crc32(0u, target) & 0xffu);
    gradient = pmeta_crc32(gradient, sample, PMETA_SAMPLE_BYTES);
    gradient = target_crc32(gradient, target);
    samples++;
    return PMETA_OK;
}

pmeta_status pmeta_end_step(uint32_t received)
{
    uint8_t bytes[4];
    if (step > PMETA_STEPS) {
        return PMETA_ERROR_FINISHED;
    }
    if (received != samples || received == 0u) {
        return PMETA_ERROR_COUNT;
    }
    if (step == 1u) {
        first_gradient = gradient;
    }
    if (gradient != first_gradient) {
        pmeta_restart_step();
        return PMETA_ERROR_SUPPORT;
    }
    for (uint32_t i = 0u; i < 4u; i++) {
        bytes[i] = (uint8_t)(gradient >> 8u * i & 0xffu);
    }
    weights = pmeta_crc32(weights, bytes, 4u);
    step++;
    pmeta_restart_step();
    return PMETA_OK;
}

void pmeta_restart_step(void)
{
    gradient = 0u;
    samples = 0u;
}

void pmeta_predict(const uint8_t *sample, float *logits)
{
    (void)forward(sample, logits);
}

uint32_t pmeta_numerics(void)
{
    return 1u;
}

uint32_t pmeta_step(void)
{
    return step;
}

uint32_t pmeta_samples(void)
{
    return samples;
}

uint32_t pmeta_tensor_bytes(uint32_t tensor)
{
    const uint32_t elements[PMETA_TENSORS] = {FIRST_TENSOR_ELEMENTS, SECOND_TENSOR_ELEMENTS};
    return tensor < PMETA_TENSORS ? 4u * elements[tensor] : 0u;
}

/* Element i of tensor t is the float32 of a number that depends on the weights, t and i. */
static uint8_t tensor_byte(uint32_t tensor, uint32_t offset)
{
    const uint32_t i = offset / 4u;
    const float value = (float)((weights >> (tensor + i) % 16u & 0xffffu) + i);
    union {
        float value;
        uint32_t bits;
    } element;
    element.value = value;
    return (uint8_t)(element.bits >> 8u * (offset % 4u) & 0xffu);
}

pmeta_status pmeta_tensor_read(uint32_t tensor, uint32_t offset, uint8_t *bytes, uint32_t count)
{
    const uint32_t size = pmeta_tensor_bytes(tensor);
    if (tensor >= PMETA_TENSORS || offset > size || count > size - offset) {
        return PMETA_ERROR_TENSOR;
    }
    for (uint32_t i = 0u; i < count; i++) {
        bytes[i] = tensor_byte(tensor, offset + i);
    }
    return PMETA_OK;
}

pmeta_status pmeta_tensor_crc32(uint32_t tensor, uint32_t *crc)
{
    if (tensor >= PMETA_TENSORS) {
        return PMETA_ERROR_TENSOR;
    }
    *crc = 0u;
    for (uint32_t i = 0u; i < pmeta_tensor_bytes(tensor); i++) {
        const uint8_t byte = tensor_byte(tensor, i);
        *crc = pmeta_crc32(*crc, &byte, 1u);
    }
    return PMETA_OK;
}
