"""Concat: the channels of several maps, or vectors, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.plan.program import Buffer, Role

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


@dataclass(frozen=True)
class Concat(Node):
    """y has the channels of all inputs, in their order; beyond the channels their shapes are equal."""

    others: tuple[str, ...]  # all inputs but the first

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input, *self.others)

    def output_shape(self, input_shape: Shape) -> Shape:
        return self.joined_shape([input_shape])

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        if len({shape[1:] for shape in shapes}) > 1:
            what = f"joins shapes {', '.join(map(str, shapes))}"
            raise ModelError(what, f"node '{self.name}'", "only the number of channels may differ")
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Concat:
        node.require({"axis": 1})
        for position, name in enumerate(node.inputs):
            if name in node.constants:
                raise node.unsupported(f"input {position} is a constant", "join activations only")
        return cls(node.name, node.inputs[0], node.outputs[0], node.inputs[1:])

    def to_onnx(self) -> OnnxNode:
        return OnnxNode("Concat", self.name, self.inputs, (self.output,), {"axis": 1}, {})

    def _elements(self, low: Lowering) -> Iterator[tuple[str, int, int]]:
        """(input, where its elements begin in y, their number)."""
        counts = [prod(low.graph.shapes[name]) for name in self.inputs]
        return zip(self.inputs, accumulate(counts, initial=0), counts, strict=False)

    def lower_joined_forward(self, low: Lowering, inputs: Sequence[Buffer]) -> Buffer:
        y = low.buffer("y", low.output_shape, Role.MAP)
        for x, (_, begin, count) in zip(inputs, self._elements(low), strict=True):
            low.call("pmeta_concat_forward", begin, count, x, y, writes=[y])
        return y

    def lower_input_gradients(self, low: Lowering, g: Buffer) -> tuple[Buffer, ...]:
        """Where nothing below an input learns, nothing is copied: `g` stands for what nobody reads."""
        gradients = []
        for position, (name, begin, count) in enumerate(self._elements(low)):
            gx = g
            if name in low.gradient_needed:
                gx = low.buffer(f"gx{position}", low.graph.shapes[name], Role.GRADIENT)
                low.call("pmeta_concat_input_gradient", begin, count, g, gx, writes=[gx])
            gradients.append(gx)
        return tuple(gradients)
