"""What activations share: each element by itself, so shapes stay and any channels can run as a slice."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar, Self

from pmeta.codegen.graph import Node, Shape, Slicing
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.plan.stored import keep, restored

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering
    from pmeta.codegen.plan.program import Buffer


@dataclass(frozen=True)
class Activation(Node):
    """An activation; its class is called as ONNX calls it. This form has no attributes."""

    slicing: ClassVar[Slicing] = Slicing.MEMBER

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Self:
        node.require({})
        return cls(node.name, node.inputs[0], node.outputs[0])

    def to_onnx(self) -> OnnxNode:
        return OnnxNode(type(self).__name__, self.name, (self.input,), (self.output,), {}, {})


@dataclass(frozen=True)
class SmoothActivation(Activation):
    """An activation whose derivative follows from y, which is kept for the backward pass."""

    keeps_map: ClassVar[bool] = True
    kernel: ClassVar[str]  # its C functions are KERNEL_forward and KERNEL_input_gradient

    def forward_macs(self, input_shape: Shape) -> int:
        return prod(input_shape)

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        y = low.own(x)
        low.call(f"{self.kernel}_forward", prod(low.output_shape), y, writes=[y])
        if low.needs_input_gradient:
            y, kept = keep(low, "kept", y, low.output_shape)
            low.note("y", kept)
        return y

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        g = low.own(g)
        y = restored(low, "restored", low.noted("y"), low.output_shape)
        low.call(f"{self.kernel}_input_gradient", prod(low.output_shape), y, g, writes=[g])
        return g
