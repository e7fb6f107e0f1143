"""Rounding of what is stored in fewer bits, as docs/numerics.md says under "Storage"."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.storage import Storage

Rounding = Callable[[Float32Array], Float32Array]  # of a map (C, ...) or a vector (C,)

_INT8_LARGEST = np.float32(127)


def kept_rounding(storage: Storage) -> Rounding:
    """What becomes of a map or vector that is kept for the backward pass."""

    def rounded(x: Float32Array) -> Float32Array:
        match storage.kept_as(x.shape):
            case "float16":
                return to_float16(x)
            case "int8":
                return to_int8(x)
        return x

    return rounded


def map_rounding(storage: Storage) -> Rounding:
    """What becomes of a finished map."""
    return to_float16 if storage.maps == "float16" else lambda x: x


def to_float16(x: Float32Array) -> Float32Array:
    """To IEEE binary16 and back: half to even, subnormals kept, too large becomes infinite."""
    return x.astype(np.float16).astype(np.float32)


def to_int8(x: Float32Array) -> Float32Array:
    """To 8 bits and back, with one scale per channel of a map (C, ...), or for a whole vector."""
    rows = x.reshape(x.shape[0] if x.ndim > 1 else 1, -1)
    magnitudes = np.abs(rows)
    largest = np.where(np.isnan(magnitudes), np.float32(0), magnitudes).max(axis=1, keepdims=True)
    scale = largest / _INT8_LARGEST
    nearest = np.rint(rows / np.where(scale == 0, np.float32(1), scale))
    quotients = np.where(np.isnan(nearest) | (scale == 0), np.float32(0), nearest)
    rounded: Float32Array = np.clip(quotients, -_INT8_LARGEST, _INT8_LARGEST) * scale
    # An integer has no −0: where the quotient is zero, so is the product, +0 (or NaN).
    return (rounded + np.float32(0)).reshape(x.shape)
