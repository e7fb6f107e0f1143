"""Gemm, as docs/numerics.md orders its sums."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.adaptation import UpdatedPart
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Gemm
from pmeta.host.simulator.arithmetic import sum_from_zero, sum_onto
from pmeta.host.simulator.operators.operator import (
    Contribution,
    Gamma,
    LayerOperator,
    Weights,
    bias_contribution,
    kept_input,
    weight_contribution,
)
from pmeta.host.simulator.storage import Rounding


def forward(x: Float32Array, w: Float32Array, b: Float32Array | None) -> Float32Array:
    """y (F,) of x (C,), w (F, C), b (F,): starts at b, then c ascending."""
    start = np.zeros(w.shape[0], np.float32) if b is None else b
    return sum_onto(start, w * x)


def input_gradient(gy: Float32Array, w: Float32Array) -> Float32Array:
    """g(x) (C,): a sum from +0 over f ascending."""
    return sum_from_zero(w.T * gy)


def weight_gradient(gy: Float32Array, x: Float32Array) -> Float32Array:
    """d (F, C): a sum from +0 of one term, so that −0 becomes +0."""
    return np.float32(0) + gy[:, None] * x[None, :]


class GemmOperator(LayerOperator[Gemm, Float32Array]):
    """Saves its input."""

    def forward(self, node: Gemm, weights: Weights, x: Float32Array) -> tuple[Float32Array, Float32Array]:
        bias = None if node.bias is None else weights[node.bias]
        return forward(x, weights[node.weight], bias), x

    def input_gradient(self, node: Gemm, weights: Weights, saved: Float32Array, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, weights[node.weight])

    def kept_for_weights(
        self, saved: Float32Array, rounded: Rounding, fw: Float32Array | None, of_sample: bool
    ) -> Float32Array:
        return kept_input(saved, rounded, fw, of_sample)

    def attended(self, saved: Float32Array) -> Float32Array:
        return saved

    def contribution(
        self, node: Gemm, kept: Float32Array, gy: Float32Array, gamma: Gamma, part: UpdatedPart
    ) -> Contribution:
        if part == "bias":
            return bias_contribution(gy, gamma)
        return weight_contribution(weight_gradient(gy, kept), gamma)
