"""LeakyRelu: alpha·x where x ≤ 0, else x."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import LeakyRelu
from pmeta.host.simulator.operators.operator import BoolArray, Operator, Weights


def forward(x: Float32Array, alpha: np.float32) -> tuple[Float32Array, BoolArray]:
    """(y, where x was ≤ 0), of any shape."""
    scaled = x <= 0
    return np.where(scaled, alpha * x, x), scaled


def input_gradient(gy: Float32Array, scaled: BoolArray, alpha: np.float32) -> Float32Array:
    """g(x)."""
    return np.where(scaled, alpha * gy, gy)


class LeakyReluOperator(Operator[LeakyRelu, BoolArray]):
    """Saves where its output is alpha·x."""

    def forward(self, node: LeakyRelu, weights: Weights, x: Float32Array) -> tuple[Float32Array, BoolArray]:
        return forward(x, np.float32(node.alpha))

    def input_gradient(self, node: LeakyRelu, weights: Weights, saved: BoolArray, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, saved, np.float32(node.alpha))
