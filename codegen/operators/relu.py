"""Relu: rectified linear activation."""

from __future__ import annotations

from dataclasses import dataclass

from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_node import OnnxNode


@dataclass(frozen=True)
class Relu(Node):
    """y = +0 where x ≤ 0, else x (so NaN passes)."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Relu:
        node.require({})
        return cls(node.name, node.inputs[0], node.outputs[0])

    def to_onnx(self) -> OnnxNode:
        return OnnxNode("Relu", self.name, (self.input,), (self.output,), {}, {})
