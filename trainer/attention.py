"""Meta attention: which channels of a layer's weight gradient matter for this task (Sec. 3.3 of the paper).

The module h (Fig. 3): global average over H and W → fc C→C → ReLU → fc C→C → mean over the micro-batch → softmax →
Algorithm 1 → γ ∈ R^C.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import numpy as np
import torch
from torch import Tensor

PARTS = ("w1", "b1", "w2", "b2")


def initial_module(channels: int, rng: np.random.Generator) -> dict[str, Tensor]:
    """Parameters of one h. The last fc starts at zero: every channel weighs the same until training says otherwise."""
    bound = 1.0 / sqrt(channels)

    def uniform(*shape: int) -> Tensor:
        return torch.from_numpy(rng.uniform(-bound, bound, shape).astype(np.float32))

    return {
        "w1": uniform(channels, channels),
        "b1": uniform(channels),
        "w2": torch.zeros(channels, channels),
        "b2": torch.zeros(channels),
    }


def clip_and_normalize(pi: Tensor, rho: int) -> Tensor:
    """Algorithm 1: zero the smallest entries of a softmax output, let the rest sum to C.

    pi: (..., C), non-negative, sums to 1 over the last axis. rho: clip ratio ρ in thousandths. c is the smallest
    number of entries, in ascending order, whose sum reaches ρ, clamped to [⌈ρC⌉, C−1]: the first bound holds for
    every π but for rounding, the second avoids the printed algorithm's division by zero where one channel holds
    more than 1−ρ. Ties: the lower index is cut first. ρ = 0 or C = 1 clip nothing.
    """
    channels = pi.shape[-1]
    if rho == 0 or channels == 1:
        return pi / pi.sum(-1, keepdim=True) * channels
    ascending, order = torch.sort(pi, dim=-1, stable=True)
    clipped = (ascending.cumsum(-1) < rho / 1000).sum(-1, keepdim=True) + 1
    clipped = clipped.clamp(min=least_clipped(channels, rho), max=channels - 1)
    rank = torch.argsort(order, dim=-1)
    kept = torch.where(rank >= clipped, pi, torch.zeros_like(pi))
    return kept / kept.sum(-1, keepdim=True) * channels


def least_clipped(channels: int, rho: int) -> int:
    """⌈ρC⌉ in integers (ρ in thousandths), at most C−1: how many channels Algorithm 1 always cuts."""
    return min(-(-rho * channels // 1000), channels - 1)


def channel_weights(module: Mapping[str, Tensor], x: Tensor, micro_batch: int, rho: int) -> Tensor:
    """γ for every sample: h of the sample's micro-batch (Eqs. 10 and 11).

    module: w1, b1, w2, b2. x: (N, C) or (N, C, H, W), x_{l-1} or g(y_l) of the whole support set. Returns (N, C);
    the samples of one micro-batch share their row. The last micro-batch may be smaller.

    Gradient: straight-through over Algorithm 1. dγ/dπ is taken as C·identity, the derivative of the algorithm at
    ρ = 0 (π sums to 1): clipped channels keep a gradient and can return.
    """
    pooled = x.flatten(2).mean(-1) if x.dim() > 2 else x
    hidden = torch.relu(pooled @ module["w1"].T + module["b1"])
    scores = hidden @ module["w2"].T + module["b2"]
    samples, channels = scores.shape
    micro_batch = min(micro_batch, samples)
    pi = torch.softmax(_micro_batch_means(scores, micro_batch), dim=-1)
    through = pi * channels
    gamma = clip_and_normalize(pi, rho).detach() + (through - through.detach())
    return gamma[:, None].expand(-1, micro_batch, -1).flatten(0, 1)[:samples]


def scaled(x: Tensor, gamma: Tensor) -> Tensor:
    """x (N, C, ...) with channel c of sample n multiplied by gamma[n, c]."""
    return x * gamma.reshape(*gamma.shape, *[1] * (x.dim() - 2))


def _micro_batch_means(scores: Tensor, micro_batch: int) -> Tensor:
    """(N, C) → (⌈N/b⌉, C): means over consecutive micro-batches."""
    if micro_batch >= scores.shape[0]:
        return scores.mean(0, keepdim=True)
    return torch.stack([part.mean(0) for part in torch.split(scores, micro_batch)])
