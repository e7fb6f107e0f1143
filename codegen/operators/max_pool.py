"""MaxPool: maximum over a sliding window, per channel."""

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
class MaxPool(Pooling):
    """y = the first largest x of the window in row-major order; taps outside the input do not take part."""

    @property
    def taps(self) -> int:
        """Elements of one window."""
        return prod(self.window.kernel)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> MaxPool:
        node.require({"auto_pad": "NOTSET", "ceil_mode": 0, "storage_order": 0}, Window.ATTRIBUTES)
        if len(node.outputs) > 1:
            raise node.unsupported("the indices output is not supported", "export the pooling without indices")
        kernel = node.ints("kernel_shape", (0, 0))
        window = Window.from_onnx(node, (kernel[0], kernel[1]))
        return cls(node.name, node.inputs[0], node.outputs[0], window)

    def to_onnx(self) -> OnnxNode:
        return OnnxNode("MaxPool", self.name, (self.input,), (self.output,), self.window.to_onnx(), {})

    @property
    def tap_bits(self) -> int:
        """Bits that number one tap of the window."""
        return max(1, (self.taps - 1).bit_length())

    def shape_constants(self, input_shape: Shape) -> ShapeConstants:
        fields = {**self.constants(input_shape), "tap_bits": self.tap_bits}
        return ShapeConstants("pmeta_max_pool_shape", fields)

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        y = low.pooled(x, self.window)
        taps = low.packed("taps", prod(low.output_shape), self.tap_bits)
        low.call("pmeta_max_pool_forward", low.shape_constant(), x, y, taps, writes=[y, taps])
        return y

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        gx = low.buffer("gx", low.input_shape, Role.GRADIENT)
        low.call("pmeta_max_pool_input_gradient", low.shape_constant(), g, low.noted("taps"), gx, writes=[gx])
        return gx
