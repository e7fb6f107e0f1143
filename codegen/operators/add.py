"""Add: two maps of the same shape summed, as where a residual connection joins."""

from __future__ import annotations

from collections.abc import Sequence
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
class Add(Node):
    """y = x + other, elementwise."""

    slicing: ClassVar[Slicing] = Slicing.JOIN

    other: str  # the second activation

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input, self.other)

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        if shapes[0] != shapes[1]:
            what = f"adds shapes {shapes[0]} and {shapes[1]}"
            raise ModelError(what, f"node '{self.name}'", "only equal shapes can be added")
        return shapes[0]

    def forward_macs(self, input_shape: Shape) -> int:
        return prod(input_shape)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Add:
        node.require({})
        for position in (0, 1):
            if node.inputs[position] in node.constants:
                raise node.unsupported(f"input {position} is a constant", "use the bias of the layer before it")
        return cls(node.name, node.inputs[0], node.outputs[0], node.inputs[1])

    def to_onnx(self) -> OnnxNode:
        return OnnxNode("Add", self.name, self.inputs, (self.output,), {}, {})

    def lower_joined_forward(self, low: Lowering, inputs: Sequence[Buffer]) -> Buffer:
        free = [x for x in inputs if low.may_overwrite(x)]
        y = low.own(free[0]) if free else low.buffer("y", low.output_shape, Role.MAP)
        low.call("pmeta_add", prod(low.output_shape), *inputs, y, writes=[y])
        return y

    def lower_input_gradients(self, low: Lowering, g: Buffer) -> tuple[Buffer, ...]:
        return (g, g)
