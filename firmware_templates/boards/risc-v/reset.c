/* SPDX-License-Identifier: Apache-2.0
 *
 * Any 32-bit RISC-V core without a floating-point unit, in machine mode, from reset on: sends every trap to
 * board_fault(), paints the stack.
 */
#include "start.h"

#define TEXT(value)    TEXT_OF(value)
#define TEXT_OF(value) #value

/* The stack is painted before any C frame is on it. */
__attribute__((naked, section(".reset"))) void board_reset(void)
{
    __asm__ volatile("li t1, " TEXT(STACK_PAINT));
    __asm__ volatile(".option push              \n"
                     ".option arch, +zicsr      \n"
                     "la t0, board_fault        \n"
                     "csrw mtvec, t0            \n"
                     ".option pop               \n"
                     "la t0, board_stack_bottom \n"
                     "la sp, board_stack_top    \n"
                     "1: bgeu t0, sp, 2f        \n"
                     "sw t1, 0(t0)              \n"
                     "addi t0, t0, 4            \n"
                     "j 1b                      \n"
                     "2: j board_start          \n");
}

void board_core_init(void)
{
    /* There is nothing to enable. */
}

/* A debugger halts at the ebreak, and QEMU ends with status 1: the two shifts around it make it a semihosting call,
 * SYS_EXIT for an unknown error. Without either, the core traps into this function for ever. */
__attribute__((naked, aligned(32))) void board_fault(void)
{
    __asm__ volatile(".option push     \n"
                     ".option norvc    \n"
                     "li a0, 0x18      \n"
                     "li a1, 0x20023   \n"
                     "slli x0, x0, 31  \n"
                     "ebreak           \n"
                     "srai x0, x0, 7   \n"
                     "1: j 1b          \n"
                     ".option pop      \n");
}
