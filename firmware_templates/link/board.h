/* SPDX-License-Identifier: Apache-2.0
 *
 * What the link needs from a board. Each board in firmware_templates/boards implements these four functions.
 */
#ifndef PMETA_BOARD_H
#define PMETA_BOARD_H

#include <stdint.h>

/* Clocks, floating-point unit, serial port; called once, before anything else. */
void board_init(void);

/* The next byte received, 0 .. 255; waits for it. Negative once the link is closed for good, which only the native
 * board can tell. */
int32_t board_receive(void);

/* Sends all bytes; returns when the last one is handed to the hardware. */
void board_send(const uint8_t *bytes, uint32_t count);

/* Most bytes of stack used since the start, from the paint left over; 0 where unknown. */
uint32_t board_stack_bytes_used(void);

#endif
