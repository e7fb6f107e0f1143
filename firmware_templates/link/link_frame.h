/* SPDX-License-Identifier: Apache-2.0
 *
 * A frame in its buffer, and the numbers in it. Part of link.c, which alone includes it.
 */
#ifndef PMETA_LINK_FRAME_H
#define PMETA_LINK_FRAME_H

#include <stdint.h>
#include <string.h>

#include "link.h"
#include "link_config.h"
#include "pmeta_model.h"

/* In a buffer: [0] 0x00, [1] COBS code, [2] header, payload, CRC, then 0x00. A frame of at most 253 bytes needs
 * exactly one extra code byte, so COBS works in place: every 0x00 of the frame becomes the distance to the next. */
#define FRAME        2u
#define PAYLOAD      (FRAME + LINK_HEADER_BYTES)
#define FRAME_LIMIT  253u
#define BUFFER_BYTES (LINK_MAX_PAYLOAD + LINK_HEADER_BYTES + LINK_CRC_BYTES + 3u)

static uint32_t read_u32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void write_u32(uint8_t *bytes, uint32_t value)
{
    bytes[0] = (uint8_t)(value & 0xffu);
    bytes[1] = (uint8_t)(value >> 8 & 0xffu);
    bytes[2] = (uint8_t)(value >> 16 & 0xffu);
    bytes[3] = (uint8_t)(value >> 24);
}

/* Little-endian binary32; every NaN as the canonical one, because cores differ in their payloads and signs. */
static void write_float(uint8_t *bytes, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    write_u32(bytes, (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc00000u : bits);
}

/* Completes the frame whose header and payload are in `buffer`, and encodes it; returns its bytes, 0x00 to 0x00. */
static uint32_t finish_frame(uint8_t *buffer, uint32_t payload_bytes)
{
    const uint32_t crc_at = PAYLOAD + payload_bytes, end = crc_at + LINK_CRC_BYTES;
    uint32_t code = 1u; /* where the code byte of the current run is */
    write_u32(buffer + crc_at, pmeta_crc32(0u, buffer + FRAME, crc_at - FRAME));
    for (uint32_t i = FRAME; i < end; i++) {
        if (buffer[i] == 0u) {
            buffer[code] = (uint8_t)(i - code);
            code = i;
        }
    }
    buffer[code] = (uint8_t)(end - code);
    buffer[0] = 0u;
    buffer[end] = 0u;
    return end + 1u;
}

/* Decodes in place the `count` bytes from buffer[1]; returns 0 if they are no complete COBS frame. What comes before
 * the fault is decoded even then. */
static int decode(uint8_t *buffer, uint32_t count)
{
    uint32_t at = 1u;
    while (at <= count) {
        const uint32_t next = at + buffer[at];
        if (next > count + 1u) {
            return 0;
        }
        buffer[at] = 0u;
        at = next;
    }
    return 1;
}

#endif
