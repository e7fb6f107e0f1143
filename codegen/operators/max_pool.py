"""MaxPool: maximum over a sliding window, per channel."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators.window import Window


@dataclass(frozen=True)
class MaxPool(Node):
    """y = the first largest x of the window in row-major order; taps outside the input do not take part."""

    window: Window

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ModelError(f"needs a (C, H, W) input, got {input_shape}", f"node '{self.name}'", "reshape before it")
        for pad, kernel in zip(self.window.pad_before + self.window.pad_after, self.window.kernel * 2, strict=True):
            if pad >= kernel:
                raise ModelError(
                    "padding as large as the kernel leaves windows without input",
                    f"node '{self.name}'",
                    "pad by less than the kernel",
                )
        return (input_shape[0], *self.window.output_size(input_shape[1:], self.name))

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
