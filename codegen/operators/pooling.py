"""What pooling over a sliding window shares: shapes, and the numbers that tell kernels about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape, Slicing
from pmeta.codegen.operators.window import Window


@dataclass(frozen=True)
class Pooling(Node):
    """Each channel of (C, H, W) by itself, window by window."""

    slicing: ClassVar[Slicing] = Slicing.MEMBER

    window: Window

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ModelError(f"needs a (C, H, W) input, got {input_shape}", f"node '{self.name}'", "reshape before it")
        return (input_shape[0], *self.window.pooled_size(input_shape[1:], self.name))

    def constants(self, input_shape: Shape) -> dict[str, int]:
        """The fields with which the shape structs of poolings begin."""
        channels, height, width = input_shape
        _, out_height, out_width = self.output_shape(input_shape)
        sizes = {"channels": channels, "in_h": height, "in_w": width, "out_h": out_height, "out_w": out_width}
        return {**sizes, **self.window.constants()}
