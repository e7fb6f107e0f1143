"""GlobalAveragePool: each channel's mean."""

from __future__ import annotations

from math import prod

import numpy as np

from pmeta.codegen.graph import Float32Array, Shape
from pmeta.codegen.operators import GlobalAveragePool
from pmeta.host.simulator.arithmetic import lane_sum
from pmeta.host.simulator.operators.operator import Operator, Weights


def forward(x: Float32Array) -> Float32Array:
    """y (C, 1, 1) of x (C, H, W)."""
    rows = x.reshape(x.shape[0], -1)
    mean: Float32Array = (lane_sum(rows) / np.float32(rows.shape[1])).reshape(-1, 1, 1)
    return mean


def input_gradient(gy: Float32Array, input_shape: Shape) -> Float32Array:
    """g(x) (C, H, W)."""
    share = gy / np.float32(prod(input_shape[1:]))
    return np.broadcast_to(share, input_shape).copy()


class GlobalAveragePoolOperator(Operator[GlobalAveragePool, Shape]):
    """Saves the shape of its input."""

    def forward(self, node: GlobalAveragePool, weights: Weights, x: Float32Array) -> tuple[Float32Array, Shape]:
        return forward(x), x.shape

    def input_gradient(self, node: GlobalAveragePool, weights: Weights, saved: Shape, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, saved)
