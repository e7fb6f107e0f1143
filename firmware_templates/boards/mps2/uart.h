/* SPDX-License-Identifier: Apache-2.0
 *
 * UART0 of the MPS2+ images AN385, AN386 and AN500.
 */
#define UART0_BASE         0x40004000u
#define UART0_RX_INTERRUPT 0u
