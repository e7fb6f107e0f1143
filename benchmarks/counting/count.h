/* SPDX-License-Identifier: Apache-2.0
 *
 * Counts the instructions between count_start() and count_stop(), and sends them, 4 bytes, lowest first.
 */
#ifndef COUNT_H
#define COUNT_H

void count_start(void);
void count_stop(void);

/* count_stop() for what has a value; returns it. */
float count_stop_float(float value);

#endif
