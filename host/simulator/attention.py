"""Meta attention: the module h (Fig. 3 of the paper) and Algorithm 1, as docs/numerics.md orders their sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pmeta.codegen.adaptation import AttentionModule
from pmeta.codegen.graph import Float32Array
from pmeta.host.simulator.arithmetic import lane_sum, softmax, sum_onto
from pmeta.host.simulator.operators import relu


def attention(module: AttentionModule, batch: Sequence[Float32Array], rho: int) -> Float32Array:
    """γ (C,) from the values (C, ...) of each sample of a micro-batch; ρ in thousandths."""
    total = np.zeros(module.channels, np.float32)
    for values in batch:
        total = total + module_output(module, values)
    return clip(softmax(total / np.float32(len(batch)))[0], rho)


def module_output(module: AttentionModule, values: Float32Array) -> Float32Array:
    """o (C,): the average over pixels, fully connected, ReLU, fully connected."""
    rows = values.reshape(values.shape[0], -1)
    average = lane_sum(rows) / np.float32(rows.shape[1])
    hidden, _ = relu.forward(sum_onto(module.b1, module.w1 * average))
    return sum_onto(module.b2, module.w2 * hidden)


def clip(probabilities: Float32Array, rho: int) -> Float32Array:
    """Algorithm 1: γ (C,) from π (C,), the smallest clipped to +0 and the rest scaled to a mean of 1."""
    channels = probabilities.shape[0]
    order = np.argsort(probabilities, kind="stable")  # NaN last, ties by lower index first
    clipped = order[: clipped_count(probabilities[order], rho)]
    kept = probabilities.copy()
    kept[clipped] = 0
    gamma = (kept / lane_sum(kept)) * np.float32(channels)
    gamma[clipped] = 0  # even where the sum is NaN: no more channels than the sparse store has room for
    return gamma


def clipped_count(ascending: Float32Array, rho: int) -> int:
    """How many of the smallest π become +0: the fewest whose sum reaches ρ, within [⌈ρC⌉, C − 1]."""
    channels: int = ascending.shape[0]
    if rho == 0 or channels == 1:
        return 0
    sums = np.add.accumulate(ascending)  # no π is −0, so these are sums from +0
    reached = np.flatnonzero(sums >= np.float32(rho) / np.float32(1000))
    count = int(reached[0]) + 1 if reached.size else channels
    at_least = -(-rho * channels // 1000)
    return min(max(count, at_least), channels - 1)  # one channel is kept even where ⌈ρC⌉ = C
