"""Relu: rectified linear activation."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from pmeta.codegen.graph import Node, Shape, Slicing
from pmeta.codegen.onnx_node import OnnxNode

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering
    from pmeta.codegen.plan.program import Buffer


@dataclass(frozen=True)
class Relu(Node):
    """y = +0 where x ≤ 0, else x (so NaN passes)."""

    slicing: ClassVar[Slicing] = Slicing.MEMBER

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Relu:
        node.require({})
        return cls(node.name, node.inputs[0], node.outputs[0])

    def to_onnx(self) -> OnnxNode:
        return OnnxNode("Relu", self.name, (self.input,), (self.output,), {}, {})

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        x = low.own(x)
        mask = low.packed("mask", prod(low.input_shape))
        low.call("pmeta_relu_forward", prod(low.input_shape), x, mask, writes=[x, mask])
        return x

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        g = low.own(g)
        low.call("pmeta_relu_input_gradient", prod(low.output_shape), low.noted("mask"), g, writes=[g])
        return g
