"""Add: the sum of two maps."""

from __future__ import annotations

from collections.abc import Sequence

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Add
from pmeta.host.simulator.operators.operator import JoinOperator, Weights


class AddOperator(JoinOperator[Add, None]):
    """Saves nothing: both inputs get the gradient of the output."""

    def join(self, node: Add, weights: Weights, inputs: Sequence[Float32Array]) -> tuple[Float32Array, None]:
        a, b = inputs
        return a + b, None

    def input_gradients(self, node: Add, weights: Weights, saved: None, gy: Float32Array) -> tuple[Float32Array, ...]:
        return gy, gy
