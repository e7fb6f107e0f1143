/* SPDX-License-Identifier: Apache-2.0
 *
 * From the core's reset code to main(): lays out RAM.
 *
 * The stack lies at the bottom of RAM, so one that grows too large leaves RAM and faults instead of overwriting data.
 */
#include "start.h"

#include <stdint.h>

#include "board.h"

#ifndef BOARD_STACK_BYTES
#error "BOARD_STACK_BYTES: the stack to reserve, a multiple of 16"
#endif

__attribute__((section(".bss.stack"), aligned(16), used)) static uint8_t stack[BOARD_STACK_BYTES];

/* Laid out by the linker script; only their addresses mean anything. */
extern uint32_t board_stack_bottom[], board_stack_top[];
extern uint8_t board_data_start[], board_data_end[], board_bss_start[], board_bss_end[];
extern const uint8_t board_data_image[];

int main(void);

/* No float code may run before the floating-point unit is on. */
__attribute__((used)) void board_start(void)
{
    board_core_init();

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

uint32_t board_stack_bytes_used(void)
{
    const uint32_t *word = board_stack_bottom;
    while (word != board_stack_top && *word == STACK_PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)board_stack_top - (uintptr_t)word);
}
