"""AveragePool: mean over a sliding window, per channel."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from pmeta.codegen.graph import Shape
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators.pooling import Pooling
from pmeta.codegen.operators.window import Window
from pmeta.codegen.plan.program import Buffer, Role, ShapeConstants

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


@dataclass(frozen=True)
class AveragePool(Pooling):
    """y = the sum of the window's taps inside the input ÷ their number, or ÷ all taps where the padding counts."""

    count_include_pad: bool

    def forward_macs(self, input_shape: Shape) -> int:
        return prod(self.output_shape(input_shape)) * prod(self.window.kernel)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> AveragePool:
        node.require({"auto_pad": "NOTSET", "ceil_mode": 0}, (*Window.ATTRIBUTES, "count_include_pad"))
        kernel = node.ints("kernel_shape", (0, 0))
        window = Window.from_onnx(node, (kernel[0], kernel[1]))
        count_include_pad = bool(node.attributes.get("count_include_pad", 0))
        return cls(node.name, node.inputs[0], node.outputs[0], window, count_include_pad)

    def to_onnx(self) -> OnnxNode:
        attributes = {**self.window.to_onnx(), "count_include_pad": int(self.count_include_pad)}
        return OnnxNode("AveragePool", self.name, (self.input,), (self.output,), attributes, {})

    def shape_constants(self, input_shape: Shape) -> ShapeConstants:
        fields = {**self.constants(input_shape), "count_include_pad": int(self.count_include_pad)}
        return ShapeConstants("pmeta_average_pool_shape", fields)

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        y = low.pooled(x, self.window)
        low.call("pmeta_average_pool_forward", low.shape_constant(), x, y, writes=[y])
        return y

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        gx = low.buffer("gx", low.input_shape, Role.GRADIENT)
        low.call("pmeta_average_pool_input_gradient", low.shape_constant(), g, gx, writes=[gx])
        return gx
