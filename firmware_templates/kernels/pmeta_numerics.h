/* SPDX-License-Identifier: Apache-2.0
 * What docs/numerics.md asks of the compiler; every kernel includes it. Compile with -ffp-contract=off and
 * -fno-strict-aliasing: the arena is bytes that hold one type after another. */
#ifndef PMETA_NUMERICS_H
#define PMETA_NUMERICS_H

#include <float.h>

/* The variant: 0 is binary32-strict/1, 1 binary32-helium/1, which follows from Helium with floats (Armv8.1-M). Define
 * PMETA_STRICT to do without. */
#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2) && !defined(PMETA_STRICT)
#define PMETA_HELIUM
#define PMETA_NUMERICS 1
#else
#define PMETA_NUMERICS 0
#endif

#if defined(__FAST_MATH__) || FLT_EVAL_METHOD != 0
#error "pmeta needs IEEE float32 arithmetic: compile without -ffast-math, and not for the x87"
#endif

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__) && defined(__FP_FAST_FMAF) && !defined(__STRICT_ANSI__) && !defined(PMETA_FP_CONTRACT_OFF)
/* In its GNU modes GCC fuses products and sums, and has no macro or pragma that tells or prevents it. */
#error "pmeta needs products and sums apart: compile with -ffp-contract=off -DPMETA_FP_CONTRACT_OFF, or with -std=c99"
#endif

#endif
