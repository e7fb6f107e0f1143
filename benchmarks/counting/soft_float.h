/* SPDX-License-Identifier: Apache-2.0
 *
 * The soft-float operations that were called since soft_float_start(), and the ticks of the timer in them.
 */
#ifndef SOFT_FLOAT_H
#define SOFT_FLOAT_H

#include <stdint.h>

typedef struct soft_float_counts {
    uint32_t calls;
    uint32_t ticks; /* with those that counting a call takes */
} soft_float_counts;

extern volatile soft_float_counts soft_float;

void soft_float_start(void);

/* Counts calls of an operation that does nothing: what counting itself takes. */
void soft_float_nothing(void);

#endif
