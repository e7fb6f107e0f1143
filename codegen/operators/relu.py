"""Relu: rectified linear activation."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from pmeta.codegen.operators.activation import Activation

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering
    from pmeta.codegen.plan.program import Buffer


@dataclass(frozen=True)
class Relu(Activation):
    """y = +0 where x ≤ 0, else x (so NaN passes)."""

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        x = low.own(x)
        mask = low.packed("mask", prod(low.input_shape))
        low.call("pmeta_relu_forward", prod(low.input_shape), x, mask, writes=[x, mask])
        return x

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        g = low.own(g)
        low.call("pmeta_relu_input_gradient", prod(low.output_shape), low.noted("mask"), g, writes=[g])
        return g
