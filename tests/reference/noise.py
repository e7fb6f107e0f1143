"""Noise like that of roundings, but larger: how far off may a computation be? (Monte Carlo arithmetic, Parker, 1997)"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Noise = torch.Generator | None  # None: none

NOISE = 2.0**-20  # relative; a rounding of float32 is at most 2⁻²⁴


class _Perturbed(torch.autograd.Function):
    """x·(1 ± NOISE), each sign drawn for itself; the gradient likewise, with signs of its own."""

    @staticmethod
    def forward(context: Any, x: Tensor, noise: torch.Generator) -> Tensor:
        context.noise = noise
        return x * _near_one(x, noise)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * _near_one(gradients[0], context.noise), None


def _near_one(x: Tensor, noise: torch.Generator) -> Tensor:
    return 1 + NOISE * (2 * torch.randint(2, x.shape, generator=noise, dtype=x.dtype) - 1)


def perturbed(x: Tensor, noise: Noise) -> Tensor:
    """What a rounding may make of x, exaggerated; x itself without noise."""
    return x if noise is None else _Perturbed.apply(x, noise)


class NoisyNormalization(torch.autograd.Function):
    """x̂ of (N, groups, M), each step off at random.

    The backward pass takes the contract's steps: autograd subtracts means last, so that its gradient sums to zero
    however wrong x̂ is, and would not tell how far the contract's may be from that.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, epsilon: float, noise: torch.Generator) -> Tensor:
        def near(value: Tensor) -> Tensor:
            return value * _near_one(value, noise)

        d = near(x - near(x.mean(2, keepdim=True)))
        rstd = near(1 / (near((near(d) * near(d)).mean(2, keepdim=True)) + epsilon).sqrt())
        context.x_hat, context.rstd, context.near = near(d) * rstd, rstd, near
        return context.x_hat

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        g, x_hat, near = gradients[0], context.x_hat, context.near
        a, b = near(g.mean(2, keepdim=True)), near(near(g * x_hat).mean(2, keepdim=True))
        return near((near(g - a) - near(x_hat * b)) * context.rstd), None, None
