"""Arithmetic of docs/numerics.md: every sum in its written order, exp and log from basic operations, canonical bytes.

NumPy's own sums and products of matrices (np.sum, np.dot, np.einsum) choose their order themselves and are not used.
np.add.accumulate adds one term after the other, so its last element is a sum in the order given.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt

from pmeta.codegen.graph import Float32Array

LANES = 8
CACHED = 1 << 15  # numbers: as many sums, and as many products, fit into a processor's second-level cache
CANONICAL_NAN = np.uint32(0x7FC00000)

# exp and log: thresholds, the two parts of ln 2, polynomials from the highest coefficient down.
_EXP_OVERFLOW = np.float32(float.fromhex("0x1.62e42ep+6"))
_EXP_UNDERFLOW = np.float32(float.fromhex("-0x1.9fe368p+6"))
_LOG2_E = np.float32(float.fromhex("0x1.715476p+0"))
_ROUNDER = np.float32(12582912)  # 1.5·2²³: adding and subtracting it rounds to an integer
_LN2_HIGH = np.float32(float.fromhex("0x1.62e4p-1"))
_LN2_LOW = np.float32(float.fromhex("0x1.7f7d1cp-20"))
_EXP_COEFFICIENTS = [
    np.float32(float.fromhex(text))
    for text in ("0x1.6db426p-10", "0x1.123b56p-7", "0x1.55545ep-5", "0x1.55548ep-3", "0x1.000000p-1")
]
_LOG_COEFFICIENTS = [
    np.float32(float.fromhex(text))
    for text in (
        "0x1.1b4be2p-4",
        "-0x1.e2fc18p-4",
        "0x1.e65668p-4",
        "-0x1.fb40a4p-4",
        "0x1.233238p-3",
        "-0x1.5562f0p-3",
        "0x1.99a54cp-3",
        "-0x1.ffffeep-3",
        "0x1.555546p-2",
    )
]
_SQRT_HALF_BITS = np.int32(0x3F3504F3)
_SMALLEST_NORMAL = np.float32(2.0**-126)
_SUBNORMAL_SHIFT = 23


def sum_onto(start: Float32Array, terms: Float32Array) -> Float32Array:
    """`start` (...) plus `terms` (..., n), one term after the other in the order of the last axis."""
    row = np.empty((*terms.shape[:-1], terms.shape[-1] + 1), np.float32)
    row[..., 0] = start
    row[..., 1:] = terms
    total: Float32Array = np.add.accumulate(row, axis=-1, out=row)[..., -1]
    return total


def sum_from_zero(terms: Float32Array) -> Float32Array:
    """The sum from +0 over the last axis of `terms` (..., n)."""
    return sum_onto(np.zeros(terms.shape[:-1], np.float32), terms)


def matrix_product(
    start: Float32Array, a: Float32Array, b: Float32Array, inside: npt.NDArray[np.bool_]
) -> Float32Array:
    """Sums (G, M, N): `start` (G, M) plus a (G, M, T) · b (G, T, N), one term after the other in the order of T.

    Only terms inside (T, N) are added; elsewhere b is +0.
    """
    # A product with +0 is ±0 if the other factor is finite, and changes no sum but −0. So it need not be left out.
    complete = np.logical_and.reduce(inside, axis=1)
    if not np.any(np.signbit(start) & (start == 0)):
        complete |= np.isfinite(a).all(axis=(0, 1))
    left, right = np.moveaxis(a, 2, 0), np.ascontiguousarray(np.moveaxis(b, 1, 0))
    sums = np.repeat(start[:, :, None], b.shape[2], axis=2)
    for g, m, n in _blocks(sums.shape):
        _add_terms(sums[g, m, n], left[:, g, m, None], right[:, g, None, n], inside[:, n], complete)
    return sums


def _add_terms(
    sums: Float32Array,
    left: Float32Array,
    right: Float32Array,
    inside: npt.NDArray[np.bool_],
    complete: npt.NDArray[np.bool_],
) -> None:
    """sums (G, M, N) ← sums + left[t]·right[t], t ascending; products are computed for some terms at once."""
    products = np.empty((max(1, CACHED // sums.size), *sums.shape), np.float32)
    for first in range(0, len(left), len(products)):
        last = min(first + len(products), len(left))
        np.multiply(left[first:last], right[first:last], out=products[: last - first])
        for t in range(first, last):
            if complete[t]:
                sums += products[t - first]
            else:
                np.add(sums, products[t - first], out=sums, where=inside[t])


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Parts of an array of `shape` that the cache holds, as long as possible in the last axes."""
    axes: list[list[slice]] = []
    room = CACHED
    for size in reversed(shape):
        length = max(1, min(size, room))  # size 0 has no parts
        axes.insert(0, [slice(first, first + length) for first in range(0, size, length)])
        room = max(1, room // length)
    return product(*axes)


def lane_sum(values: Float32Array) -> Float32Array:
    """The lane sum over the last axis of `values` (..., n): eight interleaved sums from +0, combined in a tree."""
    count = values.shape[-1]
    rows = -(-count // LANES)
    # A sum from +0 is never −0, so the +0 that fill the last row change no lane.
    padded = np.zeros((*values.shape[:-1], rows * LANES), np.float32)
    padded[..., :count] = values
    by_lane = padded.reshape(*values.shape[:-1], rows, LANES).swapaxes(-1, -2)
    lane = np.moveaxis(sum_from_zero(by_lane), -1, 0)
    total: Float32Array = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]))
    return total


@np.errstate(all="ignore")
def exp32(x: npt.ArrayLike) -> Float32Array:
    """exp(x), elementwise, in float32 operations only."""
    x = np.asarray(x, np.float32)
    low, high = x < _EXP_UNDERFLOW, x > _EXP_OVERFLOW
    inside = np.where(low | high | np.isnan(x), np.float32(0), x)
    n = (inside * _LOG2_E + _ROUNDER) - _ROUNDER
    r = (inside - n * _LN2_HIGH) - n * _LN2_LOW
    q = _horner(_EXP_COEFFICIENTS, r)
    y = (q * (r * r) + r) + np.float32(1)
    exponent = n.astype(np.int32)
    half = exponent >> 1  # ⌊n/2⌋: 2ⁿ itself may be subnormal or too large
    result = (y * _power_of_two(half)) * _power_of_two(exponent - half)
    result = np.where(low, np.float32(0), np.where(high, np.float32(np.inf), result))
    return np.where(np.isnan(x), np.float32(np.nan), result)


@np.errstate(all="ignore")
def log32(x: npt.ArrayLike) -> Float32Array:
    """log(x), elementwise, in float32 operations only."""
    x = np.asarray(x, np.float32)
    regular = (x > 0) & (x < np.inf)
    inside = np.where(regular, x, np.float32(1))
    subnormal = inside < _SMALLEST_NORMAL
    scaled = np.where(subnormal, inside * np.float32(2.0**_SUBNORMAL_SHIFT), inside)
    bits = scaled.view(np.int32)
    exponent = (bits - _SQRT_HALF_BITS) >> 23
    f = (bits - (exponent << 23)).view(np.float32) - np.float32(1)
    e = (exponent - _SUBNORMAL_SHIFT * subnormal).astype(np.float32)
    q = _horner(_LOG_COEFFICIENTS, f)
    s = f * f
    r = (s * f) * q
    r = r + e * _LN2_LOW
    r = r - np.float32(0.5) * s
    r = r + f
    result = r + e * _LN2_HIGH
    result = np.where(regular, result, np.float32(np.nan))
    result = np.where(x == 0, np.float32(-np.inf), result)
    return np.where(x == np.inf, np.float32(np.inf), result)


def softmax(logits: Float32Array) -> tuple[Float32Array, np.float32, np.float32]:
    """(p, m, S) of `logits` (n,): p_j = e_j ÷ S with e_j = exp(o_j − m), m the maximum, S the lane sum of e."""
    maximum = logits[0]
    for logit in logits[1:]:
        if logit > maximum:
            maximum = logit
    exponentials = exp32(logits - maximum)
    total = np.float32(lane_sum(exponentials))
    return exponentials / total, maximum, total


def canonical_bytes(array: Float32Array) -> bytes:
    """`array` as little-endian float32 bytes in memory order, every NaN replaced by the canonical one."""
    bits = np.where(np.isnan(array), CANONICAL_NAN, np.ascontiguousarray(array).view(np.uint32))
    return bits.astype("<u4").tobytes()


def crc32(array: Float32Array) -> int:
    """CRC-32 (as in zlib) of the canonical bytes."""
    return zlib.crc32(canonical_bytes(array))


def _horner(coefficients: list[np.float32], x: Float32Array) -> Float32Array:
    q = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        q = q * x + coefficient
    return q


def _power_of_two(exponent: npt.NDArray[np.int32]) -> Float32Array:
    """2^exponent for −126..127, from its bits."""
    return ((exponent + np.int32(127)) << 23).view(np.float32)
