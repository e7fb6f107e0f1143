"""GlobalAveragePool: each channel's mean."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape, Slicing
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.plan.program import Buffer, Role

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


@dataclass(frozen=True)
class GlobalAveragePool(Node):
    """y (C, 1, 1) = the mean of x (C, H, W) over all pixels."""

    slicing: ClassVar[Slicing] = Slicing.MEMBER

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ModelError(f"needs a (C, H, W) input, got {input_shape}", f"node '{self.name}'", "reshape before it")
        return (input_shape[0], 1, 1)

    def forward_macs(self, input_shape: Shape) -> int:
        return prod(input_shape)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> GlobalAveragePool:
        node.require({})
        return cls(node.name, node.inputs[0], node.outputs[0])

    def to_onnx(self) -> OnnxNode:
        return OnnxNode("GlobalAveragePool", self.name, (self.input,), (self.output,), {}, {})

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        channels, *size = low.input_shape
        y = low.buffer("y", low.output_shape, Role.MAP)
        low.call("pmeta_global_average_pool_forward", channels, prod(size), x, y, writes=[y])
        return y

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        channels, *size = low.input_shape
        gx = low.buffer("gx", low.input_shape, Role.GRADIENT)
        low.call("pmeta_global_average_pool_input_gradient", channels, prod(size), g, gx, writes=[gx])
        return gx
