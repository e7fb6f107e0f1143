/* SPDX-License-Identifier: Apache-2.0
 *
 * Stands between the library's code and the compiler's soft-float operations: the linker (--wrap) sends calls of
 * OPERATION to __wrap_OPERATION, which calls __real_OPERATION. With soft float, all operands are in integer registers;
 * an operation with one operand ignores the second.
 */
#include "soft_float.h"

#include "timer.h"

#define CALLS_OF_NOTHING 1024u

volatile soft_float_counts soft_float;

void soft_float_start(void)
{
    soft_float.calls = 0u;
    soft_float.ticks = 0u;
}

#define OPERATION(name)                                                                                                \
    uint32_t __real_##name(uint32_t a, uint32_t b);                                                                    \
    uint32_t __wrap_##name(uint32_t a, uint32_t b);                                                                    \
    uint32_t __wrap_##name(uint32_t a, uint32_t b)                                                                     \
    {                                                                                                                  \
        const uint32_t started = timer_now();                                                                          \
        const uint32_t result = __real_##name(a, b);                                                                   \
        soft_float.ticks += timer_now() - started;                                                                     \
        soft_float.calls++;                                                                                            \
        return result;                                                                                                 \
    }

#include "operations.h"

uint32_t __real_nothing(uint32_t a, uint32_t b);

/* One instruction, the return. */
__attribute__((noinline)) uint32_t __real_nothing(uint32_t a, uint32_t b)
{
    (void)b;
    __asm__ volatile("");
    return a;
}

OPERATION(nothing)

void soft_float_nothing(void)
{
    for (uint32_t call = 0; call < CALLS_OF_NOTHING; call++) {
        (void)__wrap_nothing(call, call);
    }
}
