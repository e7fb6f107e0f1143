"""Sigmoid: 1 ÷ (1 + exp(−x))."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Sigmoid
from pmeta.host.simulator.arithmetic import exp32
from pmeta.host.simulator.operators.operator import Operator, Weights
from pmeta.host.simulator.storage import Rounding

_ONE = np.float32(1)


def forward(x: Float32Array) -> Float32Array:
    """y, of any shape."""
    e = exp32(np.where(x < 0, x, -x))
    y: Float32Array = np.where(x < 0, e, _ONE) / (_ONE + e)
    return y


def input_gradient(gy: Float32Array, y: Float32Array) -> Float32Array:
    """g(x)."""
    return gy * (y * (_ONE - y))


class SigmoidOperator(Operator[Sigmoid, Float32Array]):
    """Saves its output."""

    def forward(self, node: Sigmoid, weights: Weights, x: Float32Array) -> tuple[Float32Array, Float32Array]:
        y = forward(x)
        return y, y

    def input_gradient(self, node: Sigmoid, weights: Weights, saved: Float32Array, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, saved)

    def kept(self, saved: Float32Array, rounded: Rounding) -> Float32Array:
        return rounded(saved)
