/* SPDX-License-Identifier: Apache-2.0
 *
 * One request at a time: receive a frame, check it, execute it at most once, reply. The last reply is kept, so that a
 * repeated request gets the same answer without being executed again.
 */
#include "link.h"

#include <string.h>

#include "board.h"
#include "link_config.h"
#include "link_frame.h"
#include "pmeta_model.h"

#define HELLO_BYTES            60u
#define REPLY_LOGITS           ((LINK_MAX_PAYLOAD - 4u) / 4u) /* most logits in one reply, beside the loss */
#define TARGET_BYTES           (PMETA_REGRESSION ? 4u * PMETA_WAYS : 0u)
#define FIXED_BYTES            (4u * PMETA_WAYS + TARGET_BYTES + 20u + 2u * BUFFER_BYTES)
#define CHECK(name, condition) typedef char check_##name[(condition) ? 1 : -1]

/* Everything static in the link. No member is wider than 4 bytes, none is a pointer: its size is the same on every
 * target, and codegen/project/link_size.py computes it. */
struct link_state {
    float logits[PMETA_WAYS]; /* of the last ADAPT or PREDICT */
#if PMETA_REGRESSION
    float target[PMETA_WAYS]; /* of the next ADAPT */
#endif
    uint32_t session;          /* number the host drew for its last HELLO; 0 before */
    uint32_t request_crc;      /* CRC-32 of the last request */
    uint32_t adaptation_id[2]; /* what the host called this adaptation at RESET, low word first; 0 before */
    uint16_t sequence;         /* of the last request */
    uint16_t reply_bytes;      /* of its reply in `transmit`, 0x00 to 0x00 */
    uint8_t sample[LINK_STATE_BYTES - FIXED_BYTES];
    uint8_t receive[BUFFER_BYTES];
    uint8_t transmit[BUFFER_BYTES];
};

static struct link_state link_state;

CHECK(state_bytes, sizeof(struct link_state) == LINK_STATE_BYTES);
CHECK(state_multiple_of_8, LINK_STATE_BYTES % 8u == 0u);
CHECK(sample_fits, sizeof(link_state.sample) >= PMETA_SAMPLE_BYTES);
CHECK(sample_wastes_less_than_8, sizeof(link_state.sample) < PMETA_SAMPLE_BYTES + 8u);
CHECK(frame_needs_one_code_byte, LINK_MAX_PAYLOAD + LINK_HEADER_BYTES + LINK_CRC_BYTES <= FRAME_LIMIT);
CHECK(hello_fits, LINK_MAX_PAYLOAD >= HELLO_BYTES);
CHECK(status_fits, (int)PMETA_ERROR_CAPACITY < (int)LINK_BUSY);

/* Answers a request that was not executed. The last reply is not touched: its request may still be repeated. */
static void refuse(uint8_t status)
{
    uint8_t *frame = link_state.receive + FRAME; /* sequence and session stay the request's */
    frame[0] = (uint8_t)LINK_VERSION;
    frame[1] |= (uint8_t)LINK_REPLY;
    frame[2] = status;
    board_send(link_state.receive, finish_frame(link_state.receive, 0u));
}

/* Answers the last request with `status` and the payload that is already in place. */
static void reply(uint8_t status, uint32_t payload_bytes)
{
    uint8_t *frame = link_state.transmit + FRAME;
    memcpy(frame, link_state.receive + FRAME, LINK_HEADER_BYTES);
    frame[1] |= (uint8_t)LINK_REPLY;
    frame[2] = status;
    link_state.reply_bytes = (uint16_t)finish_frame(link_state.transmit, payload_bytes);
    board_send(link_state.transmit, link_state.reply_bytes);
}

/* The commands: each gets its payload (length checked), writes its reply's payload and sets *bytes to its length. */

static uint8_t hello(uint8_t *out, uint32_t *bytes)
{
    memcpy(out, pmeta_firmware_id, 16u);
    write_u32(out + 16, PMETA_SAMPLE_BYTES);
    write_u32(out + 20, PMETA_WAYS);
    write_u32(out + 24, PMETA_STEPS);
    write_u32(out + 28, PMETA_TENSORS);
    write_u32(out + 32, LINK_MAX_PAYLOAD);
    write_u32(out + 36, board_stack_bytes_used());
    write_u32(out + 40, link_state.adaptation_id[0]);
    write_u32(out + 44, link_state.adaptation_id[1]);
    write_u32(out + 48, pmeta_step());
    write_u32(out + 52, pmeta_samples());
    write_u32(out + 56, pmeta_numerics());
    *bytes = HELLO_BYTES;
    return LINK_OK;
}

static uint8_t reset(const uint8_t *in)
{
    link_state.adaptation_id[0] = read_u32(in);
    link_state.adaptation_id[1] = read_u32(in + 4);
    pmeta_reset();
#if PMETA_SUPPORT_IN_RAM
    pmeta_support_clear();
#endif
    return LINK_OK;
}

/* A part of what travels in chunks, for a buffer of `size` bytes. */
static uint8_t chunk(const uint8_t *in, uint32_t in_bytes, uint8_t *buffer, uint32_t size)
{
    const uint32_t offset = read_u32(in), count = in_bytes - 4u;
    if (offset > size || count > size - offset) {
        return LINK_BAD_RANGE;
    }
    memcpy(buffer + offset, in + 4, count);
    return LINK_OK;
}

/* The target of the next sample, from the word that names it: a class by its number, numbers by their CRC-32, for they
 * have come in chunks. Returns 0 if others have come. */
static int find_target(uint32_t word, pmeta_target *target)
{
#if PMETA_REGRESSION
    *target = link_state.target;
    return word == pmeta_crc32(0u, (const uint8_t *)link_state.target, sizeof link_state.target);
#else
    *target = word;
    return 1;
#endif
}

static uint32_t write_logits(uint8_t *out, uint32_t first, uint32_t limit)
{
    const uint32_t left = PMETA_WAYS - first, count = left < limit ? left : limit;
    for (uint32_t i = 0u; i < count; i++) {
        write_float(out + 4u * i, link_state.logits[first + i]);
    }
    return 4u * count;
}

/* What a support sample came to. */
static uint8_t adapted(pmeta_status status, float loss, uint8_t *out, uint32_t *bytes)
{
    if (status == PMETA_OK) {
        write_float(out, loss);
        *bytes = 4u + write_logits(out + 4, 0u, REPLY_LOGITS);
    }
    return (uint8_t)status;
}

/* Whether a sample and what it teaches have come as the two words say. */
static int has_come(const uint8_t *words, pmeta_target *target)
{
    return find_target(read_u32(words), target) &&
           read_u32(words + 4) == pmeta_crc32(0u, link_state.sample, PMETA_SAMPLE_BYTES);
}

static uint8_t adapt(const uint8_t *in, uint8_t *out, uint32_t *bytes)
{
    float loss = 0.0f;
    pmeta_target target;
    pmeta_status status;
    if (read_u32(in) != pmeta_step() || read_u32(in + 4) != pmeta_samples()) {
        return LINK_WRONG_ORDER;
    }
    if (!has_come(in + 8, &target)) {
        return LINK_BAD_SAMPLE;
    }
    reply(LINK_BUSY, 0u);
    status = pmeta_adapt_sample(link_state.sample, target, link_state.logits, &loss);
    return adapted(status, loss, out, bytes);
}

#if PMETA_SUPPORT_SAMPLES > 0

static uint8_t support_count(uint8_t *out, uint32_t *bytes)
{
    write_u32(out, pmeta_support_count());
    *bytes = 4u;
    return LINK_OK;
}

static uint8_t support_adapt(const uint8_t *in, uint8_t *out, uint32_t *bytes)
{
    float loss = 0.0f;
    pmeta_status status;
    if (read_u32(in) != pmeta_step() || read_u32(in + 4) != pmeta_samples()) {
        return LINK_WRONG_ORDER;
    }
    reply(LINK_BUSY, 0u);
    status = pmeta_support_adapt_sample(pmeta_samples(), link_state.logits, &loss);
    return adapted(status, loss, out, bytes);
}

#endif
#if PMETA_SUPPORT_IN_RAM

static uint8_t support_add(const uint8_t *in)
{
    pmeta_target target;
    if (read_u32(in) != pmeta_support_count()) {
        return LINK_WRONG_ORDER;
    }
    if (!has_come(in + 4, &target)) {
        return LINK_BAD_SAMPLE;
    }
    return (uint8_t)pmeta_support_add(link_state.sample, target);
}

#endif

static uint8_t end_step(const uint8_t *in)
{
    if (read_u32(in) != pmeta_step()) {
        return LINK_WRONG_ORDER;
    }
    reply(LINK_BUSY, 0u);
    return (uint8_t)pmeta_end_step(read_u32(in + 4));
}

static uint8_t restart_step(const uint8_t *in)
{
    if (read_u32(in) != pmeta_step()) {
        return LINK_WRONG_ORDER;
    }
    pmeta_restart_step();
    return LINK_OK;
}

static uint8_t predict(const uint8_t *in, uint8_t *out, uint32_t *bytes)
{
    if (read_u32(in) != pmeta_crc32(0u, link_state.sample, PMETA_SAMPLE_BYTES)) {
        return LINK_BAD_SAMPLE;
    }
    reply(LINK_BUSY, 0u);
    pmeta_predict(link_state.sample, link_state.logits);
    *bytes = write_logits(out, 0u, REPLY_LOGITS);
    return LINK_OK;
}

static uint8_t read_logits(const uint8_t *in, uint8_t *out, uint32_t *bytes)
{
    const uint32_t first = read_u32(in);
    if (first >= PMETA_WAYS) {
        return LINK_BAD_RANGE;
    }
    *bytes = write_logits(out, first, REPLY_LOGITS);
    return LINK_OK;
}

static uint8_t tensor_crc(const uint8_t *in, uint8_t *out, uint32_t *bytes)
{
    uint32_t crc = 0u;
    const pmeta_status status = pmeta_tensor_crc32(read_u32(in), &crc);
    if (status == PMETA_OK) {
        write_u32(out, crc);
        *bytes = 4u;
    }
    return (uint8_t)status;
}

static uint8_t read_tensor(const uint8_t *in, uint8_t *out, uint32_t *bytes)
{
    const uint32_t count = read_u32(in + 8);
    pmeta_status status;
    if (count > LINK_MAX_PAYLOAD) {
        return LINK_BAD_RANGE;
    }
    status = pmeta_tensor_read(read_u32(in), read_u32(in + 4), out, count);
    if (status == PMETA_OK) {
        *bytes = count;
    }
    return (uint8_t)status;
}

/* Whether a request of this command may have `bytes` bytes of payload. */
static int length_is_right(uint8_t command, uint32_t bytes)
{
    switch (command) {
    case LINK_HELLO:
    case LINK_SUPPORT_COUNT:
        return bytes == 0u;
    case LINK_SAMPLE_CHUNK:
    case LINK_TARGET_CHUNK:
        return bytes > 4u;
    case LINK_RESTART_STEP:
    case LINK_PREDICT:
    case LINK_READ_LOGITS:
    case LINK_TENSOR_CRC:
        return bytes == 4u;
    case LINK_RESET:
    case LINK_END_STEP:
    case LINK_SUPPORT_ADAPT:
        return bytes == 8u;
    case LINK_READ_TENSOR:
    case LINK_SUPPORT_ADD:
        return bytes == 12u;
    case LINK_ADAPT:
        return bytes == 16u;
    default:
        return 1; /* execute() refuses it for what it is */
    }
}

static uint8_t execute(uint8_t command, const uint8_t *in, uint32_t in_bytes, uint8_t *out, uint32_t *bytes)
{
    if (!length_is_right(command, in_bytes)) {
        return LINK_BAD_LENGTH;
    }
    switch (command) {
    case LINK_HELLO:
        return hello(out, bytes);
    case LINK_RESET:
        return reset(in);
    case LINK_SAMPLE_CHUNK:
        return chunk(in, in_bytes, link_state.sample, PMETA_SAMPLE_BYTES);
#if PMETA_REGRESSION
    case LINK_TARGET_CHUNK:
        return chunk(in, in_bytes, (uint8_t *)link_state.target, sizeof link_state.target);
#endif
#if PMETA_SUPPORT_SAMPLES > 0
    case LINK_SUPPORT_COUNT:
        return support_count(out, bytes);
    case LINK_SUPPORT_ADAPT:
        return support_adapt(in, out, bytes);
#endif
#if PMETA_SUPPORT_IN_RAM
    case LINK_SUPPORT_ADD:
        return support_add(in);
#endif
    case LINK_ADAPT:
        return adapt(in, out, bytes);
    case LINK_END_STEP:
        return end_step(in);
    case LINK_RESTART_STEP:
        return restart_step(in);
    case LINK_PREDICT:
        return predict(in, out, bytes);
    case LINK_READ_LOGITS:
        return read_logits(in, out, bytes);
    case LINK_TENSOR_CRC:
        return tensor_crc(in, out, bytes);
    case LINK_READ_TENSOR:
        return read_tensor(in, out, bytes);
    default:
        return LINK_UNKNOWN_COMMAND;
    }
}

/* A frame whose CRC is right: execute it, repeat the last reply, or refuse it. */
static void serve_request(uint32_t payload_bytes, uint32_t crc)
{
    const uint8_t *frame = link_state.receive + FRAME;
    const uint8_t command = frame[1];
    const uint16_t sequence = (uint16_t)(frame[3] | frame[4] << 8);
    const uint32_t session = read_u32(frame + 5);
    uint32_t bytes = 0u;
    uint8_t status;
    if (frame[0] != LINK_VERSION) {
        refuse(LINK_BAD_VERSION);
    } else if (session == 0u || (session != link_state.session && command != LINK_HELLO)) {
        refuse(LINK_NO_SESSION);
    } else if (session == link_state.session && sequence == link_state.sequence && crc == link_state.request_crc) {
        board_send(link_state.transmit, link_state.reply_bytes);
    } else if (command != LINK_HELLO && sequence != (uint16_t)(link_state.sequence + 1u)) {
        refuse(LINK_WRONG_SEQUENCE);
    } else {
        link_state.session = session;
        link_state.sequence = sequence;
        link_state.request_crc = crc;
        status = execute(command, link_state.receive + PAYLOAD, payload_bytes, link_state.transmit + PAYLOAD, &bytes);
        reply(status, bytes);
    }
}

/* What came between two 0x00. Too short for a frame: noise, no answer. A damaged frame is answered to whom its header
 * names; the host ignores the answer if the header was damaged too. */
static void serve_frame(uint32_t count, int too_long)
{
    const int complete = decode(link_state.receive, count);
    uint32_t crc_at, crc;
    if (count < 1u + LINK_HEADER_BYTES + LINK_CRC_BYTES ||
        (link_state.receive[FRAME + 1u] & LINK_REPLY) != 0u) { /* never answer an echo of ourselves */
        return;
    }
    crc_at = count + 1u - LINK_CRC_BYTES;
    crc = pmeta_crc32(0u, link_state.receive + FRAME, crc_at - FRAME);
    if (too_long || !complete || crc != read_u32(link_state.receive + crc_at)) {
        refuse(LINK_BAD_CRC);
        return;
    }
    serve_request(crc_at - PAYLOAD, crc);
}

void link_run(void)
{
    const uint32_t limit = BUFFER_BYTES - 2u; /* of code byte, header, payload and CRC */
    uint32_t count = 0u;
    int too_long = 0;
    for (int32_t byte = board_receive(); byte >= 0; byte = board_receive()) {
        if (byte != 0) {
            if (count < limit) {
                link_state.receive[++count] = (uint8_t)byte;
            } else {
                too_long = 1;
            }
        } else if (count > 0u) {
            serve_frame(count, too_long);
            count = 0u;
            too_long = 0;
        }
    }
}
