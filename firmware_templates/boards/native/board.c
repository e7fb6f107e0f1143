/* SPDX-License-Identifier: Apache-2.0
 *
 * This computer as a board: the link is a pseudo-terminal, whose path is the only line on standard output.
 *
 * Hosts may come and go: the program keeps the terminal's other end open, so none is ever the last to leave. It ends
 * by itself once no byte has come for PMETA_IDLE_SECONDS (environment; 600), so that nothing forgotten runs for ever.
 */
#define _XOPEN_SOURCE 600

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <termios.h>
#include <unistd.h>

#include "board.h"

#define IDLE_SECONDS     600
#define IDLE_SECONDS_MAX 86400
#define SEND_TIMEOUT_MS  2000 /* a host that reads nothing for so long is gone */

static int terminal; /* the program's end */
static int idle_timeout_ms;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

/* No echo, no line editing, no translation: bytes as they are. */
static void set_raw(int descriptor)
{
    struct termios settings;
    if (tcgetattr(descriptor, &settings) != 0) {
        fail("tcgetattr");
    }
    settings.c_iflag = 0;
    settings.c_oflag = 0;
    settings.c_lflag = 0;
    settings.c_cflag = CS8 | CREAD | CLOCAL;
    settings.c_cc[VMIN] = 1;
    settings.c_cc[VTIME] = 0;
    if (tcsetattr(descriptor, TCSANOW, &settings) != 0) {
        fail("tcsetattr");
    }
}

static int read_idle_timeout_ms(void)
{
    const char *text = getenv("PMETA_IDLE_SECONDS");
    if (text == NULL) {
        return IDLE_SECONDS * 1000;
    }
    char *end;
    const long seconds = strtol(text, &end, 10);
    if (end == text || *end != '\0' || seconds < 1 || seconds > IDLE_SECONDS_MAX) {
        fprintf(stderr, "PMETA_IDLE_SECONDS: not a number from 1 to %d\n", IDLE_SECONDS_MAX);
        exit(2);
    }
    return (int)seconds * 1000;
}

void board_init(void)
{
    idle_timeout_ms = read_idle_timeout_ms();
    terminal = posix_openpt(O_RDWR | O_NOCTTY);
    if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) {
        fail("pseudo-terminal");
    }
    const char *path = ptsname(terminal);
    const int other_end = path == NULL ? -1 : open(path, O_RDWR | O_NOCTTY);
    if (other_end < 0) {
        fail("pseudo-terminal");
    }
    set_raw(other_end);
    if (fcntl(terminal, F_SETFL, O_NONBLOCK) != 0) {
        fail("fcntl");
    }
    if (printf("%s\n", path) < 0 || fflush(stdout) != 0) {
        fail("standard output");
    }
}

/* Whether the terminal is ready for `events` within the time; a signal does not count as an answer. */
static int wait_for(short events, int timeout_ms)
{
    struct pollfd waiting = {terminal, events, 0};
    int ready;
    do {
        ready = poll(&waiting, 1, timeout_ms);
    } while (ready < 0 && errno == EINTR);
    return ready > 0;
}

int32_t board_receive(void)
{
    static uint8_t buffer[4096];
    static ssize_t filled, next;

    while (next == filled) {
        if (!wait_for(POLLIN, idle_timeout_ms)) {
            return -1;
        }
        filled = read(terminal, buffer, sizeof buffer);
        next = 0;
        if (filled <= 0) {
            const int again = filled < 0 && (errno == EAGAIN || errno == EINTR);
            filled = 0;
            if (!again) {
                return -1;
            }
        }
    }
    return (int32_t)buffer[next++];
}

/* Like a wire, it loses what nobody takes: the protocol's acknowledgements cope. */
void board_send(const uint8_t *bytes, uint32_t count)
{
    while (count > 0u && wait_for(POLLOUT, SEND_TIMEOUT_MS)) {
        const ssize_t written = write(terminal, bytes, count);
        if (written < 0) {
            if (errno == EAGAIN || errno == EINTR) {
                continue;
            }
            return;
        }
        bytes += written;
        count -= (uint32_t)written;
    }
}

uint32_t board_stack_bytes_used(void)
{
    return 0;
}
