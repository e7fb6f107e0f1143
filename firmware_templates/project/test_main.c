/* SPDX-License-Identifier: Apache-2.0
 *
 * Golden vectors: adapts to a few fixed samples and compares every logit, loss and learned tensor, by bits, with what
 * the reference computed. Prints one line per case for `pio test`.
 */
#include "board.h"
#include "golden.h"
#include "pmeta_model.h"

#include <string.h>

static void print(const char *text)
{
    uint32_t count = 0;
    while (text[count] != '\0') {
        count++;
    }
    board_send((const uint8_t *)text, count);
}

static void print_number(uint32_t value)
{
    char digits[11] = {0};
    uint32_t place = 10;
    do {
        place--;
        digits[place] = (char)('0' + value % 10u);
        value /= 10u;
    } while (value > 0u);
    print(digits + place);
}

static void report(const char *name, uint32_t step, uint32_t failures)
{
    print(failures == 0u ? "PASS " : "FAIL ");
    print(name);
    if (step > 0u) {
        print("_step_");
        print_number(step);
    }
    if (failures > 0u) {
        print(": ");
        print_number(failures);
        print(" values differ from the reference");
    }
    print("\n");
}

/* Number of floats whose bits differ from the golden ones; NaNs count as equal to NaNs. */
static uint32_t differing(const float *values, const uint32_t *golden, uint32_t count)
{
    uint32_t failures = 0;
    for (uint32_t n = 0; n < count; n++) {
        uint32_t bits = 0x7fc00000u;
        if (values[n] == values[n]) {
            memcpy(&bits, &values[n], sizeof bits);
        }
        failures += (bits != golden[n]) ? 1u : 0u;
    }
    return failures;
}

#if GOLDEN_SAMPLES > 0
/* Tensors that differ from the golden ones after a step. */
static uint32_t differing_tensors(uint32_t step)
{
    uint32_t failures = 0;
    for (uint32_t t = 0; t < PMETA_TENSORS; t++) {
        uint32_t crc = 0;
        if (pmeta_tensor_crc32(t, &crc) != PMETA_OK || crc != golden_tensor_crcs[step - 1u][t]) {
            failures++;
        }
    }
    return failures;
}

static void check_step(uint32_t step)
{
    uint32_t logits_failed = 0, losses_failed = 0, tensors_failed = 0;
    for (uint32_t n = 0; n < GOLDEN_SAMPLES; n++) {
        float logits[PMETA_WAYS];
        float loss = 0.0f;
        if (pmeta_adapt_sample(golden_support[n], golden_targets[n], logits, &loss) != PMETA_OK) {
            logits_failed++;
        }
        logits_failed += differing(logits, golden_logits[step - 1u][n], PMETA_WAYS);
        losses_failed += differing(&loss, &golden_losses[step - 1u][n], 1u);
    }
    if (pmeta_end_step(GOLDEN_SAMPLES) != PMETA_OK) {
        tensors_failed++;
    }
    tensors_failed += differing_tensors(step);
    report("logits", step, logits_failed);
    report("losses", step, losses_failed);
    report("tensors", step, tensors_failed);
}
#endif

#if GOLDEN_SAMPLES > 0 && PMETA_SUPPORT_IN_RAM && PMETA_SUPPORT_SAMPLES >= GOLDEN_SAMPLES
#define KEEPS_GOLDEN_SAMPLES
/* All steps once more, by the device itself. */
static void check_kept(void)
{
    uint32_t failures = 0;
    float logits[PMETA_WAYS];
    for (uint32_t n = 0; n < GOLDEN_SAMPLES; n++) {
        failures += (pmeta_support_add(golden_support[n], golden_targets[n]) != PMETA_OK) ? 1u : 0u;
    }
    failures += (pmeta_adapt(logits) != PMETA_OK) ? 1u : 0u;
    report("kept", 0u, failures + differing_tensors(PMETA_STEPS));
}
#endif

int main(void)
{
    board_init();
    if (board_receive() < 0) { /* the runner says it listens */
        return 1;
    }
    pmeta_reset();
#if GOLDEN_SAMPLES > 0
    for (uint32_t step = 1; step <= PMETA_STEPS; step++) {
        check_step(step);
    }
#endif
#ifdef KEEPS_GOLDEN_SAMPLES
    check_kept();
#endif
    float logits[PMETA_WAYS];
    pmeta_predict(golden_query, logits);
    report("query", 0u, differing(logits, golden_query_logits, PMETA_WAYS));
    print("DONE\n");
    while (board_receive() >= 0) { /* a program that ends takes its port along, and what nobody has read yet */
    }
    return 0;
}
