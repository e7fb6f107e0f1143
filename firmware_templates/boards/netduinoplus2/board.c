/* SPDX-License-Identifier: Apache-2.0
 *
 * Netduino Plus 2 (STM32F405): the link on USART1, 115200 baud, 8N1. PA9 sends, PA10 receives. The core sleeps while it
 * waits for a byte.
 *
 * The core stays on its internal 16 MHz oscillator, which needs no waiting: QEMU models neither the oscillators nor
 * the pins, and takes no notice of the baud rate.
 */
#include <stdint.h>

#include "board.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))

#define RCC_AHB1ENR        REGISTER(0x40023830u)
#define RCC_APB2ENR        REGISTER(0x40023844u)
#define RCC_AHB1ENR_GPIOA  (1u << 0)
#define RCC_APB2ENR_USART1 (1u << 4)

#define GPIOA_MODER                REGISTER(0x40020000u)
#define GPIOA_AFRH                 REGISTER(0x40020024u)
#define GPIOA_MODER_PINS_9_10      (0xFu << 18)
#define GPIOA_MODER_ALTERNATE_9_10 (0xAu << 18)
#define GPIOA_AFRH_PINS_9_10       (0xFFu << 4)
#define GPIOA_AFRH_USART1_9_10     (0x77u << 4)

#define USART1_SR        REGISTER(0x40011000u)
#define USART1_DR        REGISTER(0x40011004u)
#define USART1_BRR       REGISTER(0x40011008u)
#define USART1_CR1       REGISTER(0x4001100Cu)
#define USART_SR_RXNE    (1u << 5)
#define USART_SR_TXE     (1u << 7)
#define USART_CR1_RE     (1u << 2)
#define USART_CR1_TE     (1u << 3)
#define USART_CR1_RXNEIE (1u << 5)
#define USART_CR1_UE     (1u << 13)

#define NVIC_ISER1      REGISTER(0xE000E104u)
#define NVIC_ICPR1      REGISTER(0xE000E284u)
#define NVIC_USART1_BIT (1u << (37 - 32))

#define CLOCK_HZ 16000000u
#define BAUD     115200u

/* A byte takes 1389 cycles; a transmitter silent for far longer is broken, and the byte is given up. */
#define SEND_POLLS 1000000u

void board_init(void)
{
    RCC_AHB1ENR |= RCC_AHB1ENR_GPIOA;
    RCC_APB2ENR |= RCC_APB2ENR_USART1;
    (void)RCC_APB2ENR; /* the clock needs two cycles before the first access */
    GPIOA_AFRH = (GPIOA_AFRH & ~GPIOA_AFRH_PINS_9_10) | GPIOA_AFRH_USART1_9_10;
    GPIOA_MODER = (GPIOA_MODER & ~GPIOA_MODER_PINS_9_10) | GPIOA_MODER_ALTERNATE_9_10;
    USART1_BRR = (CLOCK_HZ + BAUD / 2u) / BAUD;
    /* The interrupt only ends WFI: it stays masked and no handler runs. */
    __asm volatile("cpsid i" ::: "memory");
    NVIC_ISER1 = NVIC_USART1_BIT;
    USART1_CR1 = USART_CR1_UE | USART_CR1_TE | USART_CR1_RE | USART_CR1_RXNEIE;
}

int32_t board_receive(void)
{
    for (;;) {
        NVIC_ICPR1 = NVIC_USART1_BIT; /* before looking: a byte that comes after the look pends it again */
        if ((USART1_SR & USART_SR_RXNE) != 0u) {
            return (int32_t)(USART1_DR & 0xFFu);
        }
        __asm volatile("dsb\n\twfi" ::: "memory");
    }
}

void board_send(const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t polls = 0;
        while ((USART1_SR & USART_SR_TXE) == 0u && polls < SEND_POLLS) {
            polls++;
        }
        USART1_DR = bytes[i];
    }
}
