"""Products and sums of binary32-helium/1: subnormal operands count as zeros, results as small become zeros."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmeta.codegen.graph import Float32Array

_SMALLEST_NORMAL = np.float32(2.0**-126)


def product(a: Float32Array, b: Float32Array) -> Float32Array:
    """a · b, elementwise."""
    return _product_of_normals(without_subnormals(a), without_subnormals(b))


def total(a: Float32Array, b: Float32Array) -> Float32Array:
    """a + b, elementwise. A sum of normal numbers that is subnormal is exact: rounding cannot make it normal."""
    return without_subnormals(without_subnormals(a) + without_subnormals(b))


def matrix_product(
    start: Float32Array, a: Float32Array, b: Float32Array, inside: npt.NDArray[np.bool_]
) -> Float32Array:
    """As `arithmetic.matrix_product`: sums (G, M, N), each from `start`, of the terms inside in their order."""
    left, right = np.moveaxis(without_subnormals(a), 2, 0), np.moveaxis(without_subnormals(b), 1, 0)
    sums = np.repeat(start[:, :, None], b.shape[2], axis=2)
    for column, row, reached in zip(left, right, inside, strict=True):
        products = _product_of_normals(column[:, :, None], row[:, None])
        # A start that is subnormal stays so until something is added to it.
        np.copyto(sums, without_subnormals(without_subnormals(sums) + products), where=reached)
    return sums


def without_subnormals(x: Float32Array) -> Float32Array:
    """x with zeros of the same sign in place of subnormal numbers."""
    normal: Float32Array = np.where(np.abs(x) < _SMALLEST_NORMAL, np.copysign(np.float32(0), x), x)
    return normal


def _product_of_normals(a: Float32Array, b: Float32Array) -> Float32Array:
    """a · b, where neither is subnormal. What counts is the size before rounding, which is exact in float64."""
    rounded: Float32Array = a * b
    if np.any(np.abs(rounded) == _SMALLEST_NORMAL):
        too_small = np.abs(np.multiply(a, b, dtype=np.float64)) < _SMALLEST_NORMAL
        rounded = np.where(too_small, np.copysign(np.float32(0), rounded), rounded)
    return without_subnormals(rounded)
