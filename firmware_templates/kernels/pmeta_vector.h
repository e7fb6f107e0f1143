/* SPDX-License-Identifier: Apache-2.0
 * Vectors of floats, by the extensions of GCC and clang: each operation is that of binary32 in every lane. They are for
 * cores whose vectors compute what single numbers do; elsewhere, and with PMETA_SCALAR, a vector is one float. */
#ifndef PMETA_VECTOR_H
#define PMETA_VECTOR_H

#include "pmeta_inline.h"

#include <stdint.h>

/* Floats in a register. */
#if defined(PMETA_SCALAR)
#define PMETA_VECTOR 1
#elif defined(__AVX2__)
#define PMETA_VECTOR 8
#elif defined(__SSE2__) || (defined(__aarch64__) && defined(__ARM_NEON))
#define PMETA_VECTOR 4
#else
#define PMETA_VECTOR 1
#endif

/* Before a loop of which no round reads what another one writes, although its arrays may be the same: the compiler may
 * take several rounds at once, or writes out a few. */
#if PMETA_VECTOR == 1
#define PMETA_ELEMENTWISE PMETA_UNROLL_SOME
#elif defined(__clang__)
#define PMETA_ELEMENTWISE _Pragma("clang loop vectorize(assume_safety)")
#else
#define PMETA_ELEMENTWISE _Pragma("GCC ivdep")
#endif

#if PMETA_VECTOR > 1
typedef float pmeta_floats __attribute__((vector_size(PMETA_VECTOR * sizeof(float))));
typedef int32_t pmeta_ints __attribute__((vector_size(PMETA_VECTOR * sizeof(int32_t))));
#else
typedef float pmeta_floats;
#endif

#if PMETA_VECTOR == 1

PMETA_INLINE pmeta_floats pmeta_vector_load(const float *x)
{
    return *x;
}

PMETA_INLINE void pmeta_vector_store(float *x, pmeta_floats v)
{
    *x = v;
}

#else

/* x need not be aligned to more than a float. */
PMETA_INLINE pmeta_floats pmeta_vector_load(const float *x)
{
    pmeta_floats v;
    __builtin_memcpy(&v, x, sizeof v);
    return v;
}

PMETA_INLINE void pmeta_vector_store(float *x, pmeta_floats v)
{
    __builtin_memcpy(x, &v, sizeof v);
}

/* x in every lane: x - 0 is x, also where x is -0. */
PMETA_INLINE pmeta_floats pmeta_vector_splat(float x)
{
    return x - (pmeta_floats){0};
}

/* The first `count` floats, a constant; the other lanes are +0. */
PMETA_INLINE pmeta_floats pmeta_vector_load_some(const float *x, int32_t count)
{
    pmeta_floats v = {0};
    if (count >= PMETA_VECTOR) {
        return pmeta_vector_load(x);
    }
    PMETA_UNROLL
    for (int32_t lane = 0; lane < count; lane++) {
        v[lane] = x[lane];
    }
    return v;
}

PMETA_INLINE void pmeta_vector_store_some(float *x, pmeta_floats v, int32_t count)
{
    __builtin_memcpy(x, &v, (uint32_t)pmeta_min(count, PMETA_VECTOR) * sizeof *x);
}

/* 0, 1, 2, ... */
PMETA_INLINE pmeta_ints pmeta_vector_lanes(void)
{
#if PMETA_VECTOR == 8
    return (pmeta_ints){0, 1, 2, 3, 4, 5, 6, 7};
#else
    return (pmeta_ints){0, 1, 2, 3};
#endif
}

/* v in the lanes where `kept` is -1, as comparisons give it; +0 where it is 0. */
PMETA_INLINE pmeta_floats pmeta_vector_masked(pmeta_floats v, pmeta_ints kept)
{
    return (pmeta_floats)((pmeta_ints)v & kept);
}

/* a where a lane of `mask` is -1, b where it is 0. */
PMETA_INLINE pmeta_floats pmeta_vector_select(pmeta_ints mask, pmeta_floats a, pmeta_floats b)
{
    return (pmeta_floats)(((pmeta_ints)a & mask) | ((pmeta_ints)b & ~mask));
}

#if PMETA_VECTOR == 8
#define PMETA_FIRST_HALVES  0, 8, 1, 9, 2, 10, 3, 11
#define PMETA_SECOND_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#define PMETA_EVERY_OTHER   0, 2, 4, 6, 9, 11, 13, 15
#else
#define PMETA_FIRST_HALVES  0, 4, 1, 5
#define PMETA_SECOND_HALVES 2, 6, 3, 7
#define PMETA_EVERY_OTHER   0, 2, 5, 7
#endif

/* Lanes by their numbers, a's before b's. */
#if defined(__clang__)
#define PMETA_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PMETA_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (pmeta_ints){__VA_ARGS__})
#endif

/* The lanes of two vectors in turn: those of the first halves, then those of the second halves. */
PMETA_INLINE void pmeta_vector_interleave(pmeta_floats a, pmeta_floats b, pmeta_floats *first, pmeta_floats *second)
{
    *first = PMETA_SHUFFLE(a, b, PMETA_FIRST_HALVES);
    *second = PMETA_SHUFFLE(a, b, PMETA_SECOND_HALVES);
}

/* x[0], x[2], x[4], ...: `count` of them, a constant. */
PMETA_INLINE pmeta_floats pmeta_vector_load_every_other(const float *x, int32_t count)
{
    const int32_t last = 2 * (count - 1);
    const pmeta_floats first = pmeta_vector_load_some(x, last + 1);
    if (last < PMETA_VECTOR) {
        return PMETA_SHUFFLE(first, first, PMETA_EVERY_OTHER);
    }
    return PMETA_SHUFFLE(first, pmeta_vector_load_some(x + PMETA_VECTOR - 1, last - PMETA_VECTOR + 2),
                         PMETA_EVERY_OTHER);
}

/* Lane j of v[i] becomes lane i of v[j]. */
PMETA_INLINE void pmeta_vector_transpose(pmeta_floats *v)
{
    PMETA_UNROLL
    for (int32_t round = 1; round < PMETA_VECTOR; round *= 2) {
        pmeta_floats next[PMETA_VECTOR];
        PMETA_UNROLL
        for (int32_t n = 0; n < PMETA_VECTOR / 2; n++) {
            pmeta_vector_interleave(v[n], v[n + PMETA_VECTOR / 2], &next[2 * n], &next[2 * n + 1]);
        }
        PMETA_UNROLL
        for (int32_t n = 0; n < PMETA_VECTOR; n++) {
            v[n] = next[n];
        }
    }
}

#endif
#endif
