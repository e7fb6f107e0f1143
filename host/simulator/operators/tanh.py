"""Tanh: a polynomial near 0, elsewhere from exp."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Tanh
from pmeta.host.simulator.arithmetic import exp32
from pmeta.host.simulator.operators.operator import Operator, Weights
from pmeta.host.simulator.storage import Rounding

_ONE, _TWO = np.float32(1), np.float32(2)
_NEAR_ZERO = np.float32(0.625)
_COEFFICIENTS = [  # from the highest down
    np.float32(float.fromhex(text))
    for text in ("-0x1.75e1ccp-8", "0x1.52269ap-6", "-0x1.b83c5ap-5", "0x1.110726p-3", "-0x1.555532p-2")
]


@np.errstate(all="ignore")
def forward(x: Float32Array) -> Float32Array:
    """y, of any shape."""
    a = np.abs(x)
    s = a * a
    q = np.full_like(s, _COEFFICIENTS[0])
    for coefficient in _COEFFICIENTS[1:]:
        q = q * s + coefficient
    from_exp = _ONE - _TWO / (exp32(a + a) + _ONE)
    return np.copysign(np.where(a < _NEAR_ZERO, a + (a * s) * q, from_exp), x)


def input_gradient(gy: Float32Array, y: Float32Array) -> Float32Array:
    """g(x)."""
    return gy * (_ONE - y * y)


class TanhOperator(Operator[Tanh, Float32Array]):
    """Saves its output."""

    def forward(self, node: Tanh, weights: Weights, x: Float32Array) -> tuple[Float32Array, Float32Array]:
        y = forward(x)
        return y, y

    def input_gradient(self, node: Tanh, weights: Weights, saved: Float32Array, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, saved)

    def kept(self, saved: Float32Array, rounded: Rounding) -> Float32Array:
        return rounded(saved)
