/* SPDX-License-Identifier: Apache-2.0
 *
 * Arm MPS2+ with one of its Cortex-M images: the link on UART0 (CMSDK APB UART). The core sleeps while it waits for a
 * byte.
 */
#include <stdint.h>

#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define UART0_DATA        REGISTER(0x40004000u)
#define UART0_STATE       REGISTER(0x40004004u)
#define UART0_CTRL        REGISTER(0x40004008u)
#define UART0_INTCLEAR    REGISTER(0x4000400Cu)
#define UART0_BAUDDIV     REGISTER(0x40004010u)
#define UART_STATE_TXBF   (1u << 0)
#define UART_STATE_RXBF   (1u << 1)
#define UART_CTRL_TXEN    (1u << 0)
#define UART_CTRL_RXEN    (1u << 1)
#define UART_CTRL_RXIRQEN (1u << 3)
#define UART_INT_RX       (1u << 1)

#define NVIC_ISER0     REGISTER(0xE000E100u)
#define NVIC_ICPR0     REGISTER(0xE000E280u)
#define NVIC_UART0_BIT (1u << 0)

#define CLOCK_HZ 25000000u
#define BAUD     115200u

/* A byte takes 2170 cycles; a transmitter silent for far longer is broken, and the byte is given up. */
#define SEND_POLLS 1000000u

void board_init(void)
{
    UART0_BAUDDIV = CLOCK_HZ / BAUD;
    /* The interrupt only ends WFI: it stays masked and no handler runs. */
    __asm volatile("cpsid i" ::: "memory");
    NVIC_ISER0 = NVIC_UART0_BIT;
    UART0_CTRL = UART_CTRL_TXEN | UART_CTRL_RXEN | UART_CTRL_RXIRQEN;
}

int32_t board_receive(void)
{
    for (;;) {
        /* Before looking: a byte that comes after the look pends the interrupt again. */
        UART0_INTCLEAR = UART_INT_RX;
        NVIC_ICPR0 = NVIC_UART0_BIT;
        if ((UART0_STATE & UART_STATE_RXBF) != 0u) {
            return (int32_t)(UART0_DATA & 0xFFu);
        }
        __asm volatile("dsb\n\twfi" ::: "memory");
    }
}

void board_send(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t polls = 0;
        while ((UART0_STATE & UART_STATE_TXBF) != 0u && polls < SEND_POLLS) {
            polls++;
        }
        UART0_DATA = bytes[i];
    }
}
