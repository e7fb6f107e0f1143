"""GroupNormalization: per-sample normalization over groups of channels, with per-channel scale and shift.

Of a vector, each element is a channel of one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape, Slicing
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators.weight_gradient import attend, attention_scores, bias_gradient, gamma_bw, store_input
from pmeta.codegen.plan.program import Buffer, Role, ShapeConstants, StoredInput, whole
from pmeta.codegen.plan.stored import keep, restored, row_scratch, row_type, type_constant

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


@dataclass(frozen=True)
class GroupNorm(Node):
    """x̂ = (x − mean)·rstd over each group of channels and all pixels; z = x̂·scale + shift (Wu & He, 2018)."""

    slicing: ClassVar[Slicing] = Slicing.MEMBER
    keeps_map: ClassVar[bool] = True

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
        if self.groups < 1 or input_shape[0] % self.groups:
            raise ModelError(
                f"{self.groups} groups do not divide an input of shape {input_shape}",
                f"node '{self.name}'",
                "use groups that divide its channels",
            )
        return input_shape

    @property
    def most_slices(self) -> int:
        return self.groups

    def sliced(self, slices: int) -> GroupNorm:
        return replace(self, groups=self.groups // slices)

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
        channels, size = input_shape[0], prod(input_shape[1:])
        fields = {"channels": channels, "groups": self.groups, "size": size, "epsilon": self.epsilon}
        return ShapeConstants("pmeta_group_norm_shape", fields)

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        shape = low.shape_constant()
        x = self._normalized(low, low.own(x))
        if not low.recomputed:
            x = self._keep(low, x)
        z = x if low.may_overwrite(x) else low.buffer("z", low.output_shape, Role.MAP)
        low.call("pmeta_group_norm_affine", shape, x, low.weight(self.scale), low.weight(self.shift), z, writes=[z])
        return z

    def _normalized(self, low: Lowering, x: Buffer) -> Buffer:
        rstd = low.buffer("rstd", (self.groups // low.slices,), Role.STORE) if low.needs_input_gradient else None
        low.note("rstd", rstd)
        low.call("pmeta_group_norm_normalize", low.shape_constant(), x, rstd, writes=[x, rstd])
        return x

    def _keep(self, low: Lowering, x: Buffer) -> Buffer:
        """Keep what the backward pass needs of x̂; returns x̂ as it is called from now on.

        The input gradient reads the whole x̂, whatever this layer's own step size. Its own gradient reads x̂ whole, or
        what attention keeps of it, which is known only when all of x̂ is there.
        """
        if low.attends("fw"):
            attend(low, "fw", x)
        attended = self._attended(low)
        if attended and low.in_loop:
            x = low.hold(x)
            low.note("xhat", x)
        elif attended:
            x = self._keep_attended(low, x)
        elif low.learns("weight") or low.needs_input_gradient:
            x, kept = keep(low, "kept", x, self._rows(low))
            low.note("xhat", kept)
            low.note("stored", StoredInput(kept, self._rows(low), None, None))
        return x

    def _keep_attended(self, low: Lowering, x: Buffer) -> Buffer:
        """`_keep` where forward attention looks at x̂, all of which is there."""
        if not low.needs_input_gradient:
            low.note("stored", store_input(low, x, self._rows(low), weigh=False))
            return x
        gamma = attention_scores(low, "fw", x)
        x, kept = keep(low, "kept", x, self._rows(low))
        low.note("xhat", kept)
        low.note("stored", StoredInput(kept, self._rows(low), None, gamma))
        return x

    def _attended(self, low: Lowering) -> bool:
        return low.learns("weight") and low.attention("fw") is not None

    def _rows(self, low: Lowering) -> Shape:
        """The shape of x̂; an element of a vector is a channel of one pixel."""
        return low.input_shape if len(low.input_shape) > 1 else (*low.input_shape, 1)

    def lower_again(self, low: Lowering, x: Buffer) -> Buffer:
        xhat = self._normalized(low, x)
        kept_as = low.storage.kept_as(self._rows(low))
        if kept_as != "float32":  # as where it was kept
            channels, size = self._rows(low)[0], prod(self._rows(low)[1:])
            low.call("pmeta_round_rows", type_constant(kept_as), channels, size, xhat, writes=[xhat])
        low.note("xhat", xhat)
        gamma = attention_scores(low, "fw", xhat) if low.learns("weight") else None  # of a micro-batch: there already
        low.note("stored", StoredInput(xhat, self._rows(low), None, gamma))
        return xhat

    def lower_epilogue(self, low: Lowering) -> None:
        if self._attended(low):
            xhat = whole(low.noted("xhat"))
            self._keep_attended(low, xhat)
            if not low.needs_input_gradient or whole(low.noted("xhat")) != xhat:
                low.release(xhat)

    def lower_weight_gradient(self, low: Lowering, g: Buffer) -> None:
        if low.learns("weight"):
            stored, grad = low.noted("stored"), low.accumulator(self.scale)
            x = low.part(stored.x) if stored.kept is None else stored.x
            row = row_scratch(low, "row", prod(low.input_shape[1:]), x)
            low.call(
                "pmeta_group_norm_scale_gradient",
                *(low.shape_constant(), stored.kept, row_type(x), x, row, g),
                *(low.part(stored.gamma) if stored.gamma else None, gamma_bw(low), grad),
                writes=[row, grad],
            )
        if low.learns("bias"):
            bias_gradient(low, self.shift, g)

    def weight_gradient_needs_whole(self, low: Lowering) -> bool:
        return low.learns("weight") and low.noted("stored").kept is not None

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        """The gradient is written over x̂, as float32, which is not needed any more."""
        low.release(low.noted("xhat"))
        xhat, rstd = restored(low, "xhat", low.noted("xhat"), self._rows(low)), low.part(low.noted("rstd"))
        g = low.own(g)
        shape, scale = low.shape_constant(), low.weight(self.scale)
        low.call("pmeta_group_norm_input_gradient", shape, xhat, rstd, scale, g, xhat, writes=[g, xhat])
        return xhat
