/* SPDX-License-Identifier: Apache-2.0
 *
 * What the start-up code of a core (cortex-m/, risc-v/) and the part that all cores share need from each other.
 */
#ifndef BOARD_START_H
#define BOARD_START_H

#define STACK_PAINT 0x5AA5F00D

/* The core's: paints the stack from board_stack_bottom to board_stack_top, then goes on to board_start(). */
void board_reset(void);

/* The core's: enables its floating-point unit, if it has one. */
void board_core_init(void);

/* The core's: stops where it can be seen, without a stack. */
__attribute__((noreturn)) void board_fault(void);

/* Lays out RAM and calls main(). */
__attribute__((noreturn)) void board_start(void);

#endif
