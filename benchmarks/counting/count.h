/* SPDX-License-Identifier: Apache-2.0
 *
 * Counts what is done between count_start() and count_stop(), and sends it, in words of 4 bytes, lowest first: the
 * instructions, by ticks of the timer; or, with COUNT_SOFT_FLOAT, how many operations the compiler's soft-float library
 * was called for, and the ticks in them.
 */
#ifndef COUNT_H
#define COUNT_H

void count_start(void);
void count_stop(void);

/* count_stop() for what has a value; returns it. */
float count_stop_float(float value);

#endif
