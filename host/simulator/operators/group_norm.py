"""GroupNormalization, as docs/numerics.md orders its sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pmeta.codegen.adaptation import UpdatedPart
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import GroupNorm
from pmeta.host.simulator.arithmetic import lane_sum, sum_from_zero
from pmeta.host.simulator.operators.operator import (
    Contribution,
    Gamma,
    LayerOperator,
    Weights,
    bias_contribution,
    kept_channels,
)
from pmeta.host.simulator.storage import Rounding


@dataclass(frozen=True)
class Normalized:
    """What the backward pass needs."""

    x_hat: Float32Array  # (C, H, W), or (C,)
    rstd: Float32Array  # (groups, 1)


def normalize(x: Float32Array, groups: int, epsilon: np.float32) -> Normalized:
    """x̂ of x (C, H, W) or (C,), with the statistics of each group of channels."""
    rows = x.reshape(groups, -1)
    elements = np.float32(rows.shape[1])
    mean = lane_sum(rows)[:, None] / elements
    d = rows - mean
    variance = lane_sum(d * d)[:, None] / elements
    rstd = np.float32(1) / np.sqrt(variance + epsilon)
    return Normalized((d * rstd).reshape(x.shape), rstd)


def input_gradient(gz: Float32Array, scale: Float32Array, saved: Normalized) -> Float32Array:
    """g(x) (C, H, W) from g(z) = g(x̂·scale + shift)."""
    groups = saved.rstd.shape[0]
    gs = (gz * _per_channel(scale, gz)).reshape(groups, -1)
    x_hat = saved.x_hat.reshape(groups, -1)
    elements = np.float32(gs.shape[1])
    a = lane_sum(gs)[:, None] / elements
    b = lane_sum(gs * x_hat)[:, None] / elements
    return (((gs - a) - x_hat * b) * saved.rstd).reshape(gz.shape)


def scale_gradient(gz: Float32Array, x_hat: Float32Array) -> Float32Array:
    """d (C,): a sum from +0 over pixels."""
    return sum_from_zero((gz * x_hat).reshape(gz.shape[0], -1))


def _per_channel(values: Float32Array, maps: Float32Array) -> Float32Array:
    """`values` (C,) shaped to broadcast to `maps` (C, ...)."""
    return values.reshape(-1, *[1] * (maps.ndim - 1))


class GroupNormOperator(LayerOperator[GroupNorm, Normalized]):
    """Saves x̂ and 1 ÷ √(variance + ε)."""

    def forward(self, node: GroupNorm, weights: Weights, x: Float32Array) -> tuple[Float32Array, Normalized]:
        saved = normalize(x, node.groups, np.float32(node.epsilon))
        scale, shift = (_per_channel(weights[name], x) for name in (node.scale, node.shift))
        return saved.x_hat * scale + shift, saved

    def input_gradient(self, node: GroupNorm, weights: Weights, saved: Normalized, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, weights[node.scale], saved)

    def kept(self, saved: Normalized, rounded: Rounding) -> Normalized:
        # An element of a vector is a channel of one pixel.
        rows = saved.x_hat.reshape(saved.x_hat.shape[0], -1)
        return Normalized(rounded(rows).reshape(saved.x_hat.shape), saved.rstd)

    def kept_for_weights(
        self, saved: Normalized, rounded: Rounding, fw: Float32Array | None, of_sample: bool
    ) -> Normalized:
        return self.kept(saved, rounded)

    def attended(self, saved: Normalized) -> Float32Array:
        return saved.x_hat

    def contribution(
        self, node: GroupNorm, kept: Normalized, gy: Float32Array, gamma: Gamma, part: UpdatedPart
    ) -> Contribution:
        if part == "bias":
            return bias_contribution(gy, gamma)
        both = None if gamma.fw is None or gamma.bw is None else gamma.fw * gamma.bw
        one = gamma.bw if gamma.fw is None else gamma.fw
        channels = kept_channels(gamma.fw) & kept_channels(gamma.bw)
        return Contribution(scale_gradient(gy, kept.x_hat), one if both is None else both, channels)
