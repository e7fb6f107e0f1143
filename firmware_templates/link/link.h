/* SPDX-License-Identifier: Apache-2.0
 *
 * The device's end of the link: receives requests, calls pmeta_model, replies. docs/link.md describes every byte.
 */
#ifndef PMETA_LINK_H
#define PMETA_LINK_H

#include <stdint.h>

#define LINK_VERSION 1u

/* A frame between its two 0x00: one COBS code byte, header, payload, CRC-32. */
#define LINK_HEADER_BYTES 9u /* version, command, status, sequence (2), session (4) */
#define LINK_CRC_BYTES    4u

enum link_command {
    LINK_HELLO = 0x01,
    LINK_RESET = 0x02,
    LINK_SAMPLE_CHUNK = 0x03,
    LINK_ADAPT = 0x04,
    LINK_END_STEP = 0x05,
    LINK_RESTART_STEP = 0x06,
    LINK_PREDICT = 0x07,
    LINK_READ_LOGITS = 0x08,
    LINK_TENSOR_CRC = 0x09,
    LINK_READ_TENSOR = 0x0a,
    LINK_TARGET_CHUNK = 0x0b,  /* where targets are numbers */
    LINK_SUPPORT_COUNT = 0x0c, /* this and the next: where the device keeps the support set */
    LINK_SUPPORT_ADAPT = 0x0d,
    LINK_SUPPORT_ADD = 0x0e, /* where that lies in RAM */
    LINK_REPLY = 0x80        /* set in every frame the device sends */
};

/* Status of a reply; 1 .. 15 are the values of pmeta_status. */
enum link_status {
    LINK_OK = 0,
    LINK_BUSY = 16,            /* accepted and being computed; the result follows */
    LINK_BAD_CRC = 17,         /* damaged on the way: CRC-32, COBS, or longer than a frame may be */
    LINK_BAD_LENGTH = 18,      /* not this command's length */
    LINK_BAD_VERSION = 19,     /* another protocol version */
    LINK_UNKNOWN_COMMAND = 20, /* no such command */
    LINK_NO_SESSION = 21,      /* not the session of the last HELLO: say HELLO first */
    LINK_WRONG_SEQUENCE = 22,  /* neither the next request nor a repetition of the last */
    LINK_WRONG_ORDER = 23,     /* not the step or sample that comes next */
    LINK_BAD_SAMPLE = 24,      /* the sample or target buffer has another CRC-32 */
    LINK_BAD_RANGE = 25        /* outside the sample, the target, the logits or what fits in a reply */
};

/* Serves requests until board_receive() says that the link is closed. */
void link_run(void);

#endif
