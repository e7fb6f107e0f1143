/* SPDX-License-Identifier: Apache-2.0
 *
 * UART0 of the MPS3 image AN547, at its secure address.
 */
#define UART0_BASE         0x59303000u
#define UART0_RX_INTERRUPT 33u
