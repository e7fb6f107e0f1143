"""Flatten: a (C, H, W) map read as a vector. No code: the bytes stay where they are."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_node import OnnxNode

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering
    from pmeta.codegen.plan.program import Buffer


@dataclass(frozen=True)
class Flatten(Node):
    """y = x as a vector of C·H·W elements, row-major."""

    is_view: ClassVar[bool] = True
    reads_float16: ClassVar[bool] = True

    def output_shape(self, input_shape: Shape) -> Shape:
        return (prod(input_shape),)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Flatten:
        node.require({"axis": 1})
        return cls(node.name, node.inputs[0], node.outputs[0])

    def to_onnx(self) -> OnnxNode:
        return OnnxNode("Flatten", self.name, (self.input,), (self.output,), {"axis": 1}, {})

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        return x

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        return g
