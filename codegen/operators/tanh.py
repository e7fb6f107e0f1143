"""Tanh: hyperbolic tangent."""

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
class Tanh(Node):
    """y = tanh(x). The backward pass reads y."""

    slicing: ClassVar[Slicing] = Slicing.MEMBER

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def forward_macs(self, input_shape: Shape) -> int:
        return prod(input_shape)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Tanh:
        node.require({})
        return cls(node.name, node.inputs[0], node.outputs[0])

    def to_onnx(self) -> OnnxNode:
        return OnnxNode("Tanh", self.name, (self.input,), (self.output,), {}, {})

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        y = low.own(x)
        low.call("pmeta_tanh_forward", prod(low.output_shape), y, writes=[y])
        if low.needs_input_gradient:
            y = low.hold(y)
            low.note("y", y)
        return y

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        g = low.own(g)
        y = low.part(low.noted("y"))
        low.call("pmeta_tanh_input_gradient", prod(low.output_shape), y, g, writes=[g])
        return g
