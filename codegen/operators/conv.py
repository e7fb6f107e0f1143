"""Conv: 2-D convolution (cross-correlation) with kernel, stride, dilation and zero padding."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators.window import Window


@dataclass(frozen=True)
class Conv(Node):
    """y[f] = b[f] + Σ_{c,i,j} w[f,c,i,j]·x[c, ·] over (C, H, W) maps; taps outside the input are skipped."""

    weight: str  # name of w, (F, C, kernel_h, kernel_w)
    bias: str | None  # name of b, (F,)
    filters: int  # F
    window: Window

    @property
    def weight_names(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def weight_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        shapes: tuple[Shape, ...] = ((self.filters, input_shape[0], *self.window.kernel), (self.filters,))
        return shapes[: len(self.weight_names)]

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ModelError(f"needs a (C, H, W) input, got {input_shape}", f"node '{self.name}'", "reshape before it")
        return (self.filters, *self.window.output_size(input_shape[1:], self.name))

    def forward_macs(self, input_shape: Shape) -> int:
        return prod(self.output_shape(input_shape)) * input_shape[0] * prod(self.window.kernel)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Conv:
        node.require({"group": 1, "auto_pad": "NOTSET"}, Window.ATTRIBUTES)
        shape = node.weight_shape(1)
        if len(shape) != 4:
            raise node.unsupported(f"weights of shape {shape}", "use a 2-D convolution")
        window = Window.from_onnx(node, (shape[2], shape[3]))
        bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else None
        return cls(node.name, node.inputs[0], node.outputs[0], node.inputs[1], bias, shape[0], window)

    def to_onnx(self) -> OnnxNode:
        inputs = (self.input, *self.weight_names)
        return OnnxNode("Conv", self.name, inputs, (self.output,), self.window.to_onnx(), {})
