"""GroupNormalization: per-sample normalization over groups of channels, with per-channel scale and shift."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators.weight_gradient import attention_scores, bias_gradient, store_input
from pmeta.codegen.plan.program import Buffer, Role, ShapeConstants

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


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
        epsilon = float(node.attributes.get("epsilon", np.float32(1e-5)))
        if not 0 <= epsilon < float("inf"):
            raise node.unsupported(f"epsilon is {epsilon}", "use a small positive number")
        return cls(
            name=node.name,
            input=node.inputs[0],
            output=node.outputs[0],
            scale=node.inputs[1],
            shift=node.inputs[2],
            groups=int(node.attributes.get("num_groups", 0)),
            epsilon=epsilon,
        )

    def to_onnx(self) -> OnnxNode:
        attributes = {"num_groups": self.groups, "epsilon": self.epsilon}
        inputs = (self.input, self.scale, self.shift)
        return OnnxNode("GroupNormalization", self.name, inputs, (self.output,), attributes, {})

    def shape_constants(self, input_shape: Shape) -> ShapeConstants:
        channels, height, width = input_shape
        fields = {"channels": channels, "groups": self.groups, "size": height * width, "epsilon": self.epsilon}
        return ShapeConstants("pmeta_group_norm_shape", fields)

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        shape = low.shape_constant()
        rstd = low.buffer("rstd", (self.groups,), Role.STORE)
        low.call("pmeta_group_norm_normalize", shape, x, rstd, writes=[x, rstd])
        # The input gradient reads the whole x̂, whatever this layer's own step size (design: dense x̂ below which
        # something learns); otherwise x̂ may be overwritten by z.
        dense = low.needs_input_gradient
        z = x
        if low.learns("weight"):
            stored = store_input(low, x, weigh=False, keep_dense=dense)
            low.note("stored", stored)
            dense = dense or stored.x is x
        if dense:
            z = low.buffer("z", low.output_shape, Role.MAP)
        low.note("xhat", x)
        low.note("rstd", rstd)
        low.call("pmeta_group_norm_affine", shape, x, low.weight(self.scale), low.weight(self.shift), z, writes=[z])
        return z

    def lower_backward(self, low: Lowering, g: Buffer) -> Buffer | None:
        gamma_bw = attention_scores(low, "bw", g) if low.learns("weight") or low.learns("bias") else None
        shape = low.shape_constant()
        if low.learns("weight"):
            stored, grad = low.noted("stored"), low.accumulator(self.scale)
            low.call(
                "pmeta_group_norm_scale_gradient",
                *(shape, stored.kept, stored.x, g, stored.gamma, gamma_bw, grad),
                writes=[grad],
            )
        if low.learns("bias"):
            bias_gradient(low, self.shift, g, gamma_bw)
        if not low.needs_input_gradient:
            return None
        xhat, rstd = low.noted("xhat"), low.noted("rstd")
        low.call("pmeta_group_norm_input_gradient", shape, xhat, rstd, low.weight(self.scale), g, writes=[g])
        return g
