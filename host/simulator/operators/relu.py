"""Relu: +0 where x ≤ 0, else x."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Relu
from pmeta.host.simulator.operators.operator import BoolArray, Operator, Weights


def forward(x: Float32Array) -> tuple[Float32Array, BoolArray]:
    """(y, where x was ≤ 0), of any shape."""
    zero = x <= 0
    return np.where(zero, np.float32(0), x), zero


def input_gradient(gy: Float32Array, zero: BoolArray) -> Float32Array:
    """g(x)."""
    return np.where(zero, np.float32(0), gy)


class ReluOperator(Operator[Relu, BoolArray]):
    """Saves where its output is +0."""

    def forward(self, node: Relu, weights: Weights, x: Float32Array) -> tuple[Float32Array, BoolArray]:
        return forward(x)

    def input_gradient(self, node: Relu, weights: Weights, saved: BoolArray, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, saved)
