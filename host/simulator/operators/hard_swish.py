"""HardSwish: +0 up to −3, x from 3 on, x·(x + 3)/6 between."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import HardSwish
from pmeta.host.simulator.operators.operator import Operator, Weights
from pmeta.host.simulator.storage import Rounding

_ZERO, _HALF, _THREE = np.float32(0), np.float32(0.5), np.float32(3)
_THIRD, _SIXTH = (np.float32(float.fromhex(text)) for text in ("0x1.555556p-2", "0x1.555556p-3"))


@np.errstate(all="ignore")  # of the branches not taken
def forward(x: Float32Array) -> Float32Array:
    """y, of any shape."""
    return np.where(x <= -_THREE, _ZERO, np.where(x >= _THREE, x, x * ((x + _THREE) * _SIXTH)))


@np.errstate(all="ignore")
def input_gradient(gy: Float32Array, x: Float32Array) -> Float32Array:
    """g(x)."""
    return np.where(x <= -_THREE, _ZERO, np.where(x >= _THREE, gy, gy * (x * _THIRD + _HALF)))


class HardSwishOperator(Operator[HardSwish, Float32Array]):
    """Saves its input."""

    def forward(self, node: HardSwish, weights: Weights, x: Float32Array) -> tuple[Float32Array, Float32Array]:
        return forward(x), x

    def input_gradient(self, node: HardSwish, weights: Weights, saved: Float32Array, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, saved)

    def kept(self, saved: Float32Array, rounded: Rounding) -> Float32Array:
        return rounded(saved)
