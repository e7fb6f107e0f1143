"""Clip: an activation between two bounds, as ReLU6."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Shape, frozen_float32
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators.activation import Activation
from pmeta.codegen.plan.program import ShapeConstants

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering
    from pmeta.codegen.plan.program import Buffer

LARGEST = float(np.finfo(np.float32).max)  # ONNX's bounds where a file gives none


@dataclass(frozen=True)
class Clip(Activation):
    """y = min where x ≤ min, max where x ≥ max, else x (so NaN passes)."""

    min: float = -LARGEST  # finite float32 values, min ≤ max
    max: float = LARGEST

    def __post_init__(self) -> None:
        if not -LARGEST <= self.min <= self.max <= LARGEST:
            what = f"clips between {self.min} and {self.max}"
            raise ModelError(what, f"node '{self.name}'", "use finite bounds in ascending order")
        if any(float(np.float32(bound)) != bound for bound in (self.min, self.max)):
            what = f"clips between {self.min} and {self.max}"
            raise ModelError(what, f"node '{self.name}'", "use float32 bounds")

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Clip:
        node.require({})
        low, high = node.number(1), node.number(2)
        bounds = (-LARGEST if low is None else low, LARGEST if high is None else high)
        return cls(node.name, node.inputs[0], node.outputs[0], *bounds)

    def to_onnx(self) -> OnnxNode:
        bounds = {f"{self.name}.min": frozen_float32(self.min), f"{self.name}.max": frozen_float32(self.max)}
        return OnnxNode("Clip", self.name, (self.input, *bounds), (self.output,), {}, bounds)

    def shape_constants(self, input_shape: Shape) -> ShapeConstants:
        return ShapeConstants("pmeta_clip_shape", {"count": prod(input_shape), "min": self.min, "max": self.max})

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        x = low.own(x)
        mask = low.packed("mask", prod(low.input_shape))
        low.call("pmeta_clip_forward", low.shape_constant(), x, mask, writes=[x, mask])
        return x

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        g = low.own(g)
        low.call("pmeta_clip_input_gradient", low.shape_constant(), low.noted("mask"), g, writes=[g])
        return g
