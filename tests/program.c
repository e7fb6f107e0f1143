/* The generated library as a program: carries out what standard input asks for, and writes what the library answers.
 *
 * A request is a letter and little-endian numbers of four bytes. Everything it passes to the library lies in a block of
 * exactly the size that the library may read or write, so that a sanitizer sees one byte more.
 */
#include "pmeta_model.h"
#include "pmeta_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *new_block(uint32_t bytes)
{
    void *found = malloc(bytes);
    if (!found) {
        exit(2);
    }
    return found;
}

static void read_bytes(void *bytes, uint32_t count)
{
    if (fread(bytes, 1, count, stdin) != count) {
        exit(3);
    }
}

static uint32_t read_number(void)
{
    uint32_t value;
    read_bytes(&value, sizeof value);
    return value;
}

static void write_bytes(const void *bytes, uint32_t count)
{
    if (fwrite(bytes, 1, count, stdout) != count) {
        exit(4);
    }
}

static void write_number(uint32_t value)
{
    write_bytes(&value, sizeof value);
}

/* 'p' count (offset bytes)...: fill parts of the arena with 0xAA. */
static void poison_bytes(void)
{
    for (uint32_t count = read_number(); count > 0u; count--) {
        const uint32_t offset = read_number();
        memset(pmeta_arena.bytes + offset, 0xAA, read_number());
    }
}

/* 'a' target sample: status, logits, loss. 'q' sample: logits. */
static void run_sample(int adapt)
{
#if PMETA_REGRESSION
    float *const target = new_block(PMETA_WAYS * 4u);
    if (adapt) {
        read_bytes(target, PMETA_WAYS * 4u);
    }
#else
    const uint32_t target = adapt ? read_number() : 0u;
#endif
    uint8_t *sample = new_block(PMETA_SAMPLE_BYTES);
    float *logits = new_block(PMETA_WAYS * 4u);
    float *loss = new_block(4u);
    read_bytes(sample, PMETA_SAMPLE_BYTES);
    if (adapt) {
        write_number((uint32_t)pmeta_adapt_sample(sample, target, logits, loss));
    } else {
        pmeta_predict(sample, logits);
    }
    write_bytes(logits, PMETA_WAYS * 4u);
    if (adapt) {
        write_bytes(loss, 4u);
    }
    free(sample);
    free(logits);
    free(loss);
#if PMETA_REGRESSION
    free(target);
#endif
}

/* 't': CRC-32 and bytes of every tensor. */
static void write_tensors(void)
{
    for (uint32_t tensor = 0; tensor < PMETA_TENSORS; tensor++) {
        const uint32_t count = pmeta_tensor_bytes(tensor);
        uint8_t *bytes = new_block(count);
        uint32_t crc = 0;
        write_number((uint32_t)pmeta_tensor_crc32(tensor, &crc));
        write_number(crc);
        write_number((uint32_t)pmeta_tensor_read(tensor, 0, bytes, count));
        write_bytes(bytes, count);
        free(bytes);
    }
}

/* 's': save, forget everything, load: two statuses. */
static void save_and_load(void)
{
    uint8_t *state = new_block(PMETA_STATE_BYTES);
    write_number((uint32_t)pmeta_save(state, PMETA_STATE_BYTES));
    pmeta_reset();
    memset(pmeta_arena.bytes, 0xAA, PMETA_ARENA_BYTES);
    write_number((uint32_t)pmeta_load(state, PMETA_STATE_BYTES));
    free(state);
}

int main(void)
{
    pmeta_reset();
    for (int request = getchar(); request != EOF; request = getchar()) {
        switch (request) {
        case 'p':
            poison_bytes();
            break;
        case 'a':
            run_sample(1);
            break;
        case 'q':
            run_sample(0);
            break;
        case 'e':
            write_number((uint32_t)pmeta_end_step(read_number()));
            break;
        case 't':
            write_tensors();
            break;
        case 's':
            save_and_load();
            break;
        default:
            return 5;
        }
    }
    return 0;
}
