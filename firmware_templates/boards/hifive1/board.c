/* SPDX-License-Identifier: Apache-2.0
 *
 * SiFive HiFive1 (FE310): the link on UART0, 115200 baud, 8N1, which the board passes on over USB. The core sleeps
 * while it waits for a byte.
 *
 * The core runs on the 16 MHz crystal. QEMU models neither the clocks nor the pins, and takes no notice of the baud
 * rate.
 */
#include <stdint.h>

#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define PRCI_HFXOSCCFG        REGISTER(0x10008004u)
#define PRCI_PLLCFG           REGISTER(0x10008008u)
#define PRCI_HFXOSCCFG_ENABLE (1u << 30)
#define PRCI_HFXOSCCFG_READY  (1u << 31)
#define PRCI_PLLCFG_SELECT    (1u << 16) /* of the core's clock: the PLL, or what it passes on */
#define PRCI_PLLCFG_REFERENCE (1u << 17) /* of the PLL: the crystal */
#define PRCI_PLLCFG_BYPASS    (1u << 18)

#define GPIO_IOF_EN     REGISTER(0x10012038u)
#define GPIO_IOF_SEL    REGISTER(0x1001203Cu)
#define GPIO_UART0_PINS (3u << 16)

#define UART0_TXDATA      REGISTER(0x10013000u)
#define UART0_RXDATA      REGISTER(0x10013004u)
#define UART0_TXCTRL      REGISTER(0x10013008u)
#define UART0_RXCTRL      REGISTER(0x1001300Cu)
#define UART0_IE          REGISTER(0x10013010u)
#define UART0_DIV         REGISTER(0x10013018u)
#define UART_TXDATA_FULL  (1u << 31)
#define UART_RXDATA_EMPTY (1u << 31)
#define UART_CTRL_ENABLE  (1u << 0)
#define UART_IE_RX        (1u << 1)

#define PLIC_UART0_PRIORITY REGISTER(0x0C000000u + 4u * UART0_INTERRUPT)
#define PLIC_ENABLE         REGISTER(0x0C002000u)
#define PLIC_THRESHOLD      REGISTER(0x0C200000u)
#define PLIC_CLAIM          REGISTER(0x0C200004u)
#define UART0_INTERRUPT     3u

#define CLOCK_HZ 16000000u
#define BAUD     115200u

/* The crystal starts within milliseconds. */
#define CLOCK_POLLS 1000000u

/* A byte takes 1389 cycles; a transmitter silent for far longer is broken, and the byte is given up. */
#define SEND_POLLS 1000000u

static void clock_init(void)
{
    PRCI_HFXOSCCFG = PRCI_HFXOSCCFG_ENABLE;
    for (uint32_t polls = 0; (PRCI_HFXOSCCFG & PRCI_HFXOSCCFG_READY) == 0u; polls++) {
        if (polls == CLOCK_POLLS) {
            return; /* the core stays on the oscillator that it started with */
        }
    }
    PRCI_PLLCFG |= PRCI_PLLCFG_BYPASS | PRCI_PLLCFG_REFERENCE;
    PRCI_PLLCFG |= PRCI_PLLCFG_SELECT;
}

/* External interrupts end the sleep: they are enabled, but stay masked as a whole, and no handler runs. */
static void interrupts_init(void)
{
    PLIC_UART0_PRIORITY = 1u;
    PLIC_ENABLE = 1u << UART0_INTERRUPT;
    PLIC_THRESHOLD = 0u;
    __asm__ volatile(".option push           \n"
                     ".option arch, +zicsr   \n"
                     "csrci mstatus, 8       \n" /* MIE */
                     "csrw mie, %0           \n"
                     ".option pop            \n" ::"r"(1u << 11) /* MEIE */
                     : "memory");
}

void board_init(void)
{
    clock_init();
    GPIO_IOF_SEL &= ~GPIO_UART0_PINS;
    GPIO_IOF_EN |= GPIO_UART0_PINS;
    UART0_DIV = CLOCK_HZ / BAUD - 1u;
    UART0_TXCTRL = UART_CTRL_ENABLE;
    UART0_RXCTRL = UART_CTRL_ENABLE; /* an interrupt as soon as there is a byte */
    UART0_IE = UART_IE_RX;
    interrupts_init();
}

int32_t board_receive(void)
{
    for (;;) {
        /* Before looking: a byte that comes after the look is pending again. */
        PLIC_CLAIM = PLIC_CLAIM;
        const uint32_t received = UART0_RXDATA;
        if ((received & UART_RXDATA_EMPTY) == 0u) {
            return (int32_t)(received & 0xFFu);
        }
        __asm__ volatile("wfi" ::: "memory");
    }
}

void board_send(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t polls = 0;
        while ((UART0_TXDATA & UART_TXDATA_FULL) != 0u && polls < SEND_POLLS) {
            polls++;
        }
        UART0_TXDATA = bytes[i];
    }
}
