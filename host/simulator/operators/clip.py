"""Clip: min where x ≤ min, max where x ≥ max, else x."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Clip
from pmeta.host.simulator.operators.operator import BoolArray, Operator, Weights


def forward(x: Float32Array, low: np.float32, high: np.float32) -> tuple[Float32Array, BoolArray]:
    """(y, where x was ≤ low or ≥ high), of any shape."""
    below, above = x <= low, x >= high
    return np.where(below, low, np.where(above, high, x)), below | above


def input_gradient(gy: Float32Array, clipped: BoolArray) -> Float32Array:
    """g(x)."""
    return np.where(clipped, np.float32(0), gy)


class ClipOperator(Operator[Clip, BoolArray]):
    """Saves where its output is a bound."""

    def forward(self, node: Clip, weights: Weights, x: Float32Array) -> tuple[Float32Array, BoolArray]:
        return forward(x, np.float32(node.min), np.float32(node.max))

    def input_gradient(self, node: Clip, weights: Weights, saved: BoolArray, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, saved)
