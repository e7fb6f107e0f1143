/* SPDX-License-Identifier: Apache-2.0
 *
 * A board for tests: bytes come from standard input and go to standard output.
 */
#include "board.h"

#include <unistd.h>

void board_init(void)
{
}

int32_t board_receive(void)
{
    static uint8_t buffer[4096];
    static ssize_t count, next;
    if (next == count) {
        count = read(STDIN_FILENO, buffer, sizeof buffer);
        next = 0;
        if (count <= 0) {
            count = 0;
            return -1;
        }
    }
    return buffer[next++];
}

void board_send(const uint8_t *bytes, uint32_t count)
{
    while (count > 0u) {
        const ssize_t written = write(STDOUT_FILENO, bytes, count);
        if (written <= 0) {
            return;
        }
        bytes += written;
        count -= (uint32_t)written;
    }
}

uint32_t board_stack_bytes_used(void)
{
    return 1234u;
}
