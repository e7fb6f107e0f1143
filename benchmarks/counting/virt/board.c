/* SPDX-License-Identifier: Apache-2.0
 *
 * QEMU's `virt` machine for 32-bit RISC-V, which has room for any network: it only sends, on a 16550.
 */
#include <stdint.h>

#include "board.h"

#define REGISTER(address) (*(volatile uint8_t *)(address))

#define UART_DATA        REGISTER(0x10000000u)
#define UART_STATE       REGISTER(0x10000005u)
#define UART_STATE_READY (1u << 5)

void board_init(void)
{
}

int32_t board_receive(void)
{
    return -1;
}

void board_send(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        while ((UART_STATE & UART_STATE_READY) == 0u) {
        }
        UART_DATA = bytes[i];
    }
}
