/* SPDX-License-Identifier: Apache-2.0
 *
 * Adapts to one sample in every step and predicts it once, and sends what that took: in all, or with COUNT_CALLS, where
 * macros wrap them in the library's sources, of every kernel call. Two counts come first: of nothing, which is what
 * counting itself takes, and of the checksum of a sample.
 */
#include "count.h"

#include "board.h"
#include "pmeta_model.h"
#include "sample.h"
#include "timer.h"

static void send(uint32_t word)
{
    const uint8_t bytes[4] = {(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16), (uint8_t)(word >> 24)};
    board_send(bytes, sizeof bytes);
}

#if defined(COUNT_SOFT_FLOAT)
#include "soft_float.h"

__attribute__((noinline)) void count_start(void)
{
    soft_float_start();
}

__attribute__((noinline)) void count_stop(void)
{
    const soft_float_counts counts = soft_float;
    send(counts.calls);
    send(counts.ticks);
}

static void do_nothing(void)
{
    soft_float_nothing();
}
#else
static uint32_t started;

__attribute__((noinline)) void count_start(void)
{
    started = timer_now();
}

__attribute__((noinline)) void count_stop(void)
{
    send(timer_now() - started);
}

static void do_nothing(void)
{
}
#endif

float count_stop_float(float value)
{
    count_stop();
    return value;
}

#if defined(COUNT_CALLS)
#define WHOLE(call) (void)(call)
#else
#define WHOLE(call)                                                                                                    \
    do {                                                                                                               \
        count_start();                                                                                                 \
        (void)(call);                                                                                                  \
        count_stop();                                                                                                  \
    } while (0)
#endif

/* A function of its own: a trace of the program ends here. */
__attribute__((noinline, noreturn)) static void counted_all(void)
{
    for (;;) {
        __asm__ volatile("");
    }
}

int main(void)
{
    float logits[PMETA_WAYS];
    float loss;
    board_init();
    timer_init();
    count_start();
    do_nothing();
    count_stop();
    count_start();
    (void)pmeta_crc32(0u, sample, PMETA_SAMPLE_BYTES);
    count_stop();
    pmeta_reset();
    for (uint32_t step = 1; step <= PMETA_STEPS; step++) {
        WHOLE(pmeta_adapt_sample(sample, TARGET, logits, &loss));
        WHOLE(pmeta_end_step(1u));
    }
    WHOLE((pmeta_predict(sample, logits), 0));
    send(0xFFFFFFFFu); /* no count: the end */
    counted_all();
}
