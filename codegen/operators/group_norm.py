"""GroupNormalization: per-sample normalization over groups of channels, with per-channel scale and shift."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_node import OnnxNode


@dataclass(frozen=True)
class GroupNorm(Node):
    """x̂ = (x − mean)·rstd over each group of channels and all pixels; z = x̂·scale + shift (Wu & He, 2018)."""

    scale: str  # name of the per-channel scale, (C,)
    shift: str  # name of the per-channel shift, (C,)
    groups: int  # divides C
    epsilon: float  # a float32 value, added to the variance

    @property
    def weight_names(self) -> tuple[str, ...]:
        return (self.scale, self.shift)

    def weight_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        return ((input_shape[0],), (input_shape[0],))

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3 or self.groups < 1 or input_shape[0] % self.groups:
            raise ModelError(
                f"{self.groups} groups do not divide an input of shape {input_shape}",
                f"node '{self.name}'",
                "use a (C, H, W) input with C a multiple of the groups",
            )
        return input_shape

    def forward_macs(self, input_shape: Shape) -> int:
        # The paper's tables count five per element: mean, variance (two), normalization, affine.
        return 5 * prod(input_shape)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> GroupNorm:
        node.require({"stash_type": 1}, ("num_groups", "epsilon"))
        for position in (1, 2):
            node.weight_shape(position)
        return cls(
            name=node.name,
            input=node.inputs[0],
            output=node.outputs[0],
            scale=node.inputs[1],
            shift=node.inputs[2],
            groups=int(node.attributes.get("num_groups", 0)),
            epsilon=float(node.attributes.get("epsilon", np.float32(1e-5))),
        )

    def to_onnx(self) -> OnnxNode:
        attributes = {"num_groups": self.groups, "epsilon": self.epsilon}
        inputs = (self.input, self.scale, self.shift)
        return OnnxNode("GroupNormalization", self.name, inputs, (self.output,), attributes, {})
