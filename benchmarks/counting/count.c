/* SPDX-License-Identifier: Apache-2.0
 *
 * Adapts to one sample in every step and predicts it once, and sends how many instructions that took: in all, or with
 * COUNT_CALLS, where macros wrap them in the library's sources, of every kernel call. Two counts come first: of
 * nothing, which is what counting itself takes, and of the checksum of a sample.
 *
 * QEMU runs with -icount, so timers advance with instructions: TIM2 of an STM32 by one per instruction (shift=0), the
 * 25 MHz timer of an MPS2 by 64/40 (shift=6).
 */
#include "count.h"

#include "board.h"
#include "pmeta_model.h"
#include "sample.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#if defined(COUNT_TIM2)
#define RCC_APB1ENR  REGISTER(0x40023840u)
#define TIM2_CR1     REGISTER(0x40000000u)
#define TIM2_COUNT   REGISTER(0x40000024u)
#define TIM2_RELOAD  REGISTER(0x4000002Cu)
#define ELAPSED(now) ((now) - started)

static void timer_init(void)
{
    RCC_APB1ENR |= 1u;
    TIM2_RELOAD = 0xFFFFFFFFu;
    TIM2_CR1 = 1u;
}

static uint32_t timer_now(void)
{
    return TIM2_COUNT;
}
#else
#define TIMER0_CONTROL REGISTER(0x40000000u)
#define TIMER0_VALUE   REGISTER(0x40000004u)
#define TIMER0_RELOAD  REGISTER(0x40000008u)
#define ELAPSED(now)   (started - (now)) /* it counts down */

static void timer_init(void)
{
    TIMER0_RELOAD = 0xFFFFFFFFu;
    TIMER0_VALUE = 0xFFFFFFFFu;
    TIMER0_CONTROL = 1u;
}

static uint32_t timer_now(void)
{
    return TIMER0_VALUE;
}
#endif

static uint32_t started;

void count_start(void)
{
    started = timer_now();
}

static void send(uint32_t word)
{
    const uint8_t bytes[4] = {(uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16), (uint8_t)(word >> 24)};
    board_send(bytes, sizeof bytes);
}

void count_stop(void)
{
    send(ELAPSED(timer_now()));
}

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

int main(void)
{
    float logits[PMETA_WAYS];
    float loss;
    board_init();
    timer_init();
    count_start();
    count_stop();
    count_start();
    (void)pmeta_crc32(0u, sample, PMETA_SAMPLE_BYTES);
    count_stop();
    pmeta_reset();
    for (uint32_t step = 1; step <= PMETA_STEPS; step++) {
        WHOLE(pmeta_adapt_sample(sample, TARGET, logits, &loss));
        WHOLE(pmeta_end_step(1u));
    }
#if defined(COUNT_CALLS)
    pmeta_predict(sample, logits);
#else
    count_start();
    pmeta_predict(sample, logits);
    count_stop();
#endif
    send(0xFFFFFFFFu); /* no count: the end */
    for (;;) {
    }
}
