/* SPDX-License-Identifier: Apache-2.0
 *
 * Any Cortex-M from reset on: paints the stack, enables the floating-point unit.
 */
#include <stdint.h>

#include "start.h"

#define TEXT(value)            TEXT_OF(value)
#define TEXT_OF(value)         #value
#define CPACR                  (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_CP10_FULL_ACCESS (0xFu << 20) /* and CP11: floating point and Helium */

extern uint32_t board_stack_top[]; /* laid out by the linker script */

typedef void (*vector)(void);

__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    (vector)board_stack_top,
    board_reset,
    board_fault, /* NMI */
    board_fault, /* HardFault */
    board_fault, /* MemManage */
    board_fault, /* BusFault */
    board_fault, /* UsageFault */
    board_fault, /* SecureFault, from Armv8-M on */
    0,
    0,
    0,
    board_fault, /* SVCall */
    board_fault, /* DebugMonitor */
    0,
    board_fault, /* PendSV */
    board_fault, /* SysTick */
};

/* The stack is painted before any C frame is on it. */
__attribute__((naked)) void board_reset(void)
{
    __asm__ volatile("ldr r2, =" TEXT(STACK_PAINT));
    __asm__ volatile("ldr r0, =board_stack_bottom \n"
                     "ldr r1, =board_stack_top    \n"
                     "1: cmp r0, r1               \n"
                     "bhs 2f                      \n"
                     "str r2, [r0]                \n"
                     "adds r0, r0, #4             \n"
                     "b 1b                        \n"
                     "2: b board_start            \n"
                     ".ltorg                      \n");
}

/* A core without a floating-point unit ignores it. The barriers make the switch take effect. FPDSCR, from which the
 * unit starts, is 0 in what matters after reset: subnormal numbers are not flushed to zero. */
void board_core_init(void)
{
    CPACR |= CPACR_CP10_FULL_ACCESS;
    __asm__ volatile("dsb \n isb" ::: "memory");
}

/* A debugger halts here; without one the core locks up, and QEMU ends with the registers on its standard error. */
void board_fault(void)
{
    for (;;) {
        __asm__ volatile("bkpt 0");
    }
}
