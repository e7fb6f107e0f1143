/* SPDX-License-Identifier: Apache-2.0
 *
 * From reset to main() on any Cortex-M: paints the stack, enables the floating-point unit, lays out RAM.
 *
 * The stack lies at the bottom of RAM, so one that grows too large leaves RAM and faults instead of overwriting data.
 */
#include <stdint.h>

#include "board.h"

#define STACK_PAINT           0x5AA5F00D
#define TEXT(value)           TEXT_OF(value)
#define TEXT_OF(value)        #value
#define CPACR                 (*(volatile uint32_t *)0xE000ED88u)
#define CPACR_FPU_FULL_ACCESS (0xFu << 20)

#ifndef BOARD_STACK_BYTES
#error "BOARD_STACK_BYTES: the stack to reserve, a multiple of 8"
#endif

__attribute__((section(".bss.stack"), aligned(8), used)) static uint8_t stack[BOARD_STACK_BYTES];

/* Laid out by the linker script; only their addresses mean anything. */
extern uint32_t board_stack_bottom[], board_stack_top[];
extern uint8_t board_data_start[], board_data_end[], board_bss_start[], board_bss_end[];
extern const uint8_t board_data_image[];

int main(void);
void board_reset(void);
void board_start(void);
__attribute__((noreturn)) void board_fault(void);

typedef void (*vector)(void);

__attribute__((section(".vectors"), used)) static const vector vectors[16] = {
    (vector)board_stack_top,
    board_reset,
    board_fault, /* NMI */
    board_fault, /* HardFault */
    board_fault, /* MemManage */
    board_fault, /* BusFault */
    board_fault, /* UsageFault */
    0,
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
__attribute__((naked, noreturn)) void board_reset(void)
{
    __asm__ volatile("ldr r0, =board_stack_bottom \n"
                     "ldr r1, =board_stack_top    \n"
                     "ldr r2, =" TEXT(STACK_PAINT) " \n"
                                                   "1: cmp r0, r1               \n"
                                                   "bhs 2f                      \n"
                                                   "str r2, [r0]                \n"
                                                   "adds r0, r0, #4             \n"
                                                   "b 1b                        \n"
                                                   "2: b board_start            \n"
                                                   ".ltorg                      \n");
}

/* No float code may run before the unit is on; the barriers make the switch take effect. */
__attribute__((noreturn, used)) void board_start(void)
{
    CPACR |= CPACR_FPU_FULL_ACCESS;
    __asm__ volatile("dsb \n isb" ::: "memory");

    const uint8_t *image = board_data_image;
    for (uint8_t *byte = board_data_start; byte != board_data_end; byte++) {
        *byte = *image++;
    }
    for (uint8_t *byte = board_bss_start; byte != board_bss_end; byte++) {
        *byte = 0;
    }

    (void)main();
    board_fault();
}

/* Stops where it can be seen: a debugger halts here; without one the core locks up, and QEMU ends with the
 * registers on its standard error. */
void board_fault(void)
{
    for (;;) {
        __asm__ volatile("bkpt 0");
    }
}

uint32_t board_stack_bytes_used(void)
{
    const uint32_t *word = board_stack_bottom;
    while (word != board_stack_top && *word == STACK_PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)board_stack_top - (uintptr_t)word);
}
