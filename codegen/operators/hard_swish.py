"""HardSwish: x·relu6(x + 3)/6 (Howard et al., Searching for MobileNetV3, 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

from pmeta.codegen.graph import Shape
from pmeta.codegen.operators.activation import Activation
from pmeta.codegen.plan.program import Buffer, Role
from pmeta.codegen.plan.stored import keep, restored

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


@dataclass(frozen=True)
class HardSwish(Activation):
    """y = 0 where x ≤ −3, x where x ≥ 3, else x·(x + 3)/6. The backward pass reads x."""

    keeps_map: ClassVar[bool] = True

    def forward_macs(self, input_shape: Shape) -> int:
        return prod(input_shape)

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        if low.needs_input_gradient:
            x, kept = keep(low, "kept", x, low.output_shape)
            low.note("x", kept)
        y = low.own(x) if low.may_overwrite(x) else low.buffer("y", low.output_shape, Role.MAP)
        low.call("pmeta_hard_swish_forward", prod(low.output_shape), x, y, writes=[y])
        return y

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        g = low.own(g)
        x = restored(low, "restored", low.noted("x"), low.output_shape)
        low.call("pmeta_hard_swish_input_gradient", prod(low.output_shape), x, g, writes=[g])
        return g
