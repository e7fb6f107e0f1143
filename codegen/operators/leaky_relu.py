"""LeakyRelu: rectified linear activation with a slope for negative inputs."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, prod
from typing import TYPE_CHECKING

import numpy as np

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Shape
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators.activation import Activation
from pmeta.codegen.plan.program import ShapeConstants

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering
    from pmeta.codegen.plan.program import Buffer


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """y = alpha·x where x ≤ 0, else x (so NaN passes)."""

    alpha: float = float(np.float32(0.01))  # a finite float32 value

    def __post_init__(self) -> None:
        if not isfinite(self.alpha) or float(np.float32(self.alpha)) != self.alpha:
            raise ModelError(f"alpha = {self.alpha}", f"node '{self.name}'", "use a finite float32 value")

    def forward_macs(self, input_shape: Shape) -> int:
        return prod(input_shape)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> LeakyRelu:
        node.require({}, ("alpha",))
        alpha = float(node.attributes.get("alpha", cls.alpha))
        return cls(node.name, node.inputs[0], node.outputs[0], alpha)

    def to_onnx(self) -> OnnxNode:
        return OnnxNode("LeakyRelu", self.name, (self.input,), (self.output,), {"alpha": self.alpha}, {})

    def shape_constants(self, input_shape: Shape) -> ShapeConstants:
        return ShapeConstants("pmeta_leaky_relu_shape", {"count": prod(input_shape), "alpha": self.alpha})

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        x = low.own(x)
        mask = low.packed("mask", prod(low.input_shape))
        low.call("pmeta_leaky_relu_forward", low.shape_constant(), x, mask, writes=[x, mask])
        return x

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        g = low.own(g)
        low.call("pmeta_leaky_relu_input_gradient", low.shape_constant(), low.noted("mask"), g, writes=[g])
        return g
