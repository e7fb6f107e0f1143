/* SPDX-License-Identifier: Apache-2.0
 *
 * The four functions a compiler may call on its own even without a C library. Word by word where both
 * addresses allow it.
 */
#include <stdint.h>
#include <string.h>

/* GCC would see these loops for what they are, and call the function from inside itself. */
#if defined(__GNUC__) && !defined(__clang__)
#define NO_LIBRARY_CALL __attribute__((optimize("no-tree-loop-distribute-patterns")))
#else
#define NO_LIBRARY_CALL
#endif

typedef uint32_t __attribute__((may_alias)) word;

NO_LIBRARY_CALL void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    uint8_t *out = to;
    const uint8_t *in = from;
    if ((((uintptr_t)out | (uintptr_t)in) & 3u) == 0u) {
        for (; count >= 4u; count -= 4u, out += 4, in += 4) {
            *(word *)(void *)out = *(const word *)(const void *)in;
        }
    }
    while (count-- > 0u) {
        *out++ = *in++;
    }
    return to;
}

NO_LIBRARY_CALL void *memmove(void *to, const void *from, size_t count)
{
    uint8_t *out = to;
    const uint8_t *in = from;
    if ((uintptr_t)out <= (uintptr_t)in) {
        for (size_t i = 0; i < count; i++) {
            out[i] = in[i];
        }
    } else {
        while (count-- > 0u) {
            out[count] = in[count];
        }
    }
    return to;
}

NO_LIBRARY_CALL void *memset(void *to, int value, size_t count)
{
    uint8_t *out = to;
    if (((uintptr_t)out & 3u) == 0u) {
        const uint32_t pattern = (uint32_t)(uint8_t)value * 0x01010101u;
        for (; count >= 4u; count -= 4u, out += 4) {
            *(word *)(void *)out = pattern;
        }
    }
    while (count-- > 0u) {
        *out++ = (uint8_t)value;
    }
    return to;
}

NO_LIBRARY_CALL int memcmp(const void *left, const void *right, size_t count)
{
    const uint8_t *a = left;
    const uint8_t *b = right;
    for (size_t i = 0; i < count; i++) {
        if (a[i] != b[i]) {
            return (int)a[i] - (int)b[i];
        }
    }
    return 0;
}
