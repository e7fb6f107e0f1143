"""Conv: 2-D convolution (cross-correlation) with kernel, stride, dilation and zero padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape, Slicing
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators.weight_gradient import bias_gradient, gamma_bw, prepare_weight_gradient
from pmeta.codegen.operators.window import Window
from pmeta.codegen.plan.program import Buffer, Role, ShapeConstants
from pmeta.codegen.plan.stored import row_scratch, row_type

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


@dataclass(frozen=True)
class Conv(Node):
    """y[f] = b[f] + Σ_{c,i,j} w[f,c,i,j]·x[c, ·] over (C, H, W) maps; taps outside the input are skipped.

    With several groups, filters and channels are divided among them, and a filter reads the channels of its group: one
    each makes it depthwise.
    """

    slicing: ClassVar[Slicing] = Slicing.HEAD
    reads_uint8: ClassVar[bool] = True
    reads_float16: ClassVar[bool] = True

    weight: str  # name of w, (F, C / groups, kernel_h, kernel_w)
    bias: str | None  # name of b, (F,)
    filters: int  # F
    window: Window
    groups: int = 1  # divides C and F

    @property
    def weight_names(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def weight_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        channels = input_shape[0] // self.groups
        shapes: tuple[Shape, ...] = ((self.filters, channels, *self.window.kernel), (self.filters,))
        return shapes[: len(self.weight_names)]

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ModelError(f"needs a (C, H, W) input, got {input_shape}", f"node '{self.name}'", "reshape before it")
        if input_shape[0] % self.groups or self.filters % self.groups:
            what = f"{self.groups} groups do not divide {input_shape[0]} channels and {self.filters} filters"
            raise ModelError(what, f"node '{self.name}'", "export it again")
        return (self.filters, *self.window.output_size(input_shape[1:], self.name))

    @property
    def most_slices(self) -> int | None:
        return None if self.groups == 1 else 1  # a slice's filters would read a part of the input

    def sliced(self, slices: int) -> Conv:
        return replace(self, filters=self.filters // slices)

    def forward_macs(self, input_shape: Shape) -> int:
        return prod(self.output_shape(input_shape)) * (input_shape[0] // self.groups) * prod(self.window.kernel)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Conv:
        node.require({"auto_pad": "NOTSET"}, (*Window.ATTRIBUTES, "group"))
        shape = node.weight_shape(1)
        if len(shape) != 4:
            raise node.unsupported(f"weights of shape {shape}", "use a 2-D convolution")
        window = Window.from_onnx(node, (shape[2], shape[3]))
        bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else None
        groups = int(node.attributes.get("group", 1))
        if groups < 1:
            raise node.unsupported(f"group = {groups}", "export it again")
        return cls(node.name, node.inputs[0], node.outputs[0], node.inputs[1], bias, shape[0], window, groups)

    def to_onnx(self) -> OnnxNode:
        inputs = (self.input, *self.weight_names)
        groups = {"group": self.groups} if self.groups > 1 else {}
        return OnnxNode("Conv", self.name, inputs, (self.output,), {**self.window.to_onnx(), **groups}, {})

    def shape_constants(self, input_shape: Shape) -> ShapeConstants:
        channels, height, width = input_shape
        filters, out_height, out_width = self.output_shape(input_shape)
        fields = {
            "channels": channels,
            "filters": filters,
            "groups": self.groups,
            "in_h": height,
            "in_w": width,
            "out_h": out_height,
            "out_w": out_width,
            **self.window.constants(),
        }
        return ShapeConstants("pmeta_conv_shape", fields)

    def lower_prologue(self, low: Lowering, x: Buffer) -> None:
        prepare_weight_gradient(low, x)

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        y = low.buffer("y", low.output_shape, Role.MAP)
        shape, weight = low.shape_constant(), low.weight(self.weight)
        bias = low.weight(self.bias) if self.bias else None
        if x == low.encoded_sample:
            sample = ("sample", "input_scale", "input_offset")
            low.call("pmeta_conv_forward_uint8", shape, *sample, weight, bias, y, writes=[y])
        elif x.ctype == "pmeta_float16":
            low.call("pmeta_conv_forward_float16", shape, x, weight, bias, y, writes=[y])
        else:
            low.call("pmeta_conv_forward", shape, x, weight, bias, y, writes=[y])
        return y

    def lower_again(self, low: Lowering, x: Buffer) -> Buffer:
        return self.lower_forward(low, x)

    def lower_weight_gradient(self, low: Lowering, g: Buffer) -> None:
        if low.learns("weight"):
            stored, grad = low.noted("stored"), low.accumulator(self.weight)
            plane = row_scratch(low, "plane", prod(low.input_shape[1:]), stored.x)
            read = (low.shape_constant(), stored.kept, row_type(stored.x), stored.x, plane)
            low.call("pmeta_conv_weight_gradient", *read, g, gamma_bw(low), grad, writes=[plane, grad])
        if self.bias and low.learns("bias"):
            bias_gradient(low, self.bias, g)

    def weight_gradient_needs_whole(self, low: Lowering) -> bool:
        return False

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        """In a loop, each slice of the filters adds to the whole gradient."""
        gx = low.whole_buffer("gx", low.input_shape, Role.GRADIENT)
        shape, first, weight = low.shape_constant(), low.is_first_slice, low.weight(self.weight)
        low.call("pmeta_conv_input_gradient", shape, first, weight, g, gx, writes=[gx])
        return gx
