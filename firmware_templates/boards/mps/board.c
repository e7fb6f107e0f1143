/* SPDX-License-Identifier: Apache-2.0
 *
 * Arm MPS2+ and MPS3 with one of their Cortex-M images: the link on UART0 (CMSDK APB UART). The core sleeps while it
 * waits for a byte. Where UART0 is, uart.h of mps2/ and mps3/ say.
 */
#include <stdint.h>

#include "board.h"
#include "uart.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define UART0_DATA        REGISTER(UART0_BASE + 0x00u)
#define UART0_STATE       REGISTER(UART0_BASE + 0x04u)
#define UART0_CTRL        REGISTER(UART0_BASE + 0x08u)
#define UART0_INTCLEAR    REGISTER(UART0_BASE + 0x0Cu)
#define UART0_BAUDDIV     REGISTER(UART0_BASE + 0x10u)
#define UART_STATE_TXBF   (1u << 0)
#define UART_STATE_RXBF   (1u << 1)
#define UART_CTRL_TXEN    (1u << 0)
#define UART_CTRL_RXEN    (1u << 1)
#define UART_CTRL_RXIRQEN (1u << 3)
#define UART_INT_RX       (1u << 1)

#define NVIC_ISER      REGISTER(0xE000E100u + UART0_RX_INTERRUPT / 32u * 4u)
#define NVIC_ICPR      REGISTER(0xE000E280u + UART0_RX_INTERRUPT / 32u * 4u)
#define NVIC_UART0_BIT (1u << UART0_RX_INTERRUPT % 32u)

#define UART_CLOCK_HZ 25000000u
#define BAUD          115200u

/* A byte takes 2170 cycles; a transmitter silent for far longer is broken, and the byte is given up. */
#define SEND_POLLS 1000000u

void board_init(void)
{
    UART0_BAUDDIV = UART_CLOCK_HZ / BAUD;
    /* The interrupt only ends WFI: it stays masked and no handler runs. */
    __asm volatile("cpsid i" ::: "memory");
    NVIC_ISER = NVIC_UART0_BIT;
    UART0_CTRL = UART_CTRL_TXEN | UART_CTRL_RXEN | UART_CTRL_RXIRQEN;
    (void)UART0_DATA; /* until the first read, QEMU may not look for bytes that came before the receiver was on */
}

int32_t board_receive(void)
{
    for (;;) {
        /* Before looking: a byte that comes after the look pends the interrupt again. */
        UART0_INTCLEAR = UART_INT_RX;
        NVIC_ICPR = NVIC_UART0_BIT;
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
