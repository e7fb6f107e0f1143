/* SPDX-License-Identifier: Apache-2.0
 *
 * What advances with instructions when QEMU runs with -icount: by how much, benchmarks/counting_firmware.py says. It
 * counts up, 32 bits wide.
 */
#ifndef TIMER_H
#define TIMER_H

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

#if defined(COUNT_TIM2) /* of an STM32: one tick per clock of its bus */

static inline void timer_init(void)
{
    REGISTER(0x40023840u) |= 1u;         /* RCC_APB1ENR: its clock */
    REGISTER(0x4000002Cu) = 0xFFFFFFFFu; /* reload */
    REGISTER(0x40000000u) = 1u;          /* on */
}

static inline uint32_t timer_now(void)
{
    return REGISTER(0x40000024u);
}

#elif defined(COUNT_CMSDK) /* timer 0 of an MPS2, at 25 MHz; it counts down */

static inline void timer_init(void)
{
    REGISTER(0x40000008u) = 0xFFFFFFFFu; /* reload */
    REGISTER(0x40000004u) = 0xFFFFFFFFu; /* value */
    REGISTER(0x40000000u) = 1u;          /* on */
}

static inline uint32_t timer_now(void)
{
    return 0u - REGISTER(0x40000004u);
}

#elif defined(COUNT_SYSTEM_COUNTER) /* of an SSE-300, at 32 MHz */

static inline void timer_init(void)
{
    REGISTER(0x58100000u) = 1u; /* on */
}

static inline uint32_t timer_now(void)
{
    return REGISTER(0x58101000u);
}

#elif defined(COUNT_MINSTRET) /* of a RISC-V core: the instructions themselves */

static inline void timer_init(void)
{
}

static inline uint32_t timer_now(void)
{
    uint32_t count;
    __asm__ volatile(".option push         \n"
                     ".option arch, +zicsr \n"
                     "csrr %0, minstret    \n"
                     ".option pop          \n"
                     : "=r"(count));
    return count;
}

#else
#error "a timer: COUNT_TIM2, COUNT_CMSDK, COUNT_SYSTEM_COUNTER or COUNT_MINSTRET"
#endif

#endif
