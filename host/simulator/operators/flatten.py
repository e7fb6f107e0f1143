"""Flatten: the same numbers in the same order."""

from __future__ import annotations

from pmeta.codegen.graph import Float32Array, Shape
from pmeta.codegen.operators import Flatten
from pmeta.host.simulator.operators.operator import Operator, Weights


class FlattenOperator(Operator[Flatten, Shape]):
    """Saves the shape of its input."""

    def forward(self, node: Flatten, weights: Weights, x: Float32Array) -> tuple[Float32Array, Shape]:
        return x.reshape(-1), x.shape

    def input_gradient(self, node: Flatten, weights: Weights, saved: Shape, gy: Float32Array) -> Float32Array:
        return gy.reshape(saved)
