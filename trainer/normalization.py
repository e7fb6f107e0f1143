"""Group normalization and its gradient, both differentiable, in few passes over memory.

Per sample and group of M elements: x̂ = r·(x − mean), r = 1/sqrt(variance + ε). The gradient of the input,
B(g) = r·(g − mean(g) − x̂·mean(g·x̂)), is linear in g and symmetric, so its own gradients are B again, for g, and

    −r·mean(g·x̂)·B(v) − r·mean(v·x̂)·B(g) − x̂·r·mean(v·B(g))

for x, v being the gradient of B(g).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def group_norm(x: Tensor, scale: Tensor, shift: Tensor, groups: int, epsilon: float) -> tuple[Tensor, ...]:
    """(y, x̂, mean, r): y = x̂·scale + shift and x̂ like x, (N, C, ...); mean and r: (N, groups), no gradient."""
    found: tuple[Tensor, ...] = _Forward.apply(x, scale, shift, groups, epsilon)
    return found


def input_gradient(g: Tensor, x: Tensor, normalized: Tensor, mean: Tensor, r: Tensor, scale: Tensor) -> Tensor:
    """Gradient of x, given that of y; `normalized`, `mean` and `r` are what `group_norm` gave."""
    scaled = g * scale.reshape(-1, *[1] * (g.dim() - 2))
    dx: Tensor = _Backward.apply(scaled, x, normalized.detach(), mean, r)
    return dx


class _Forward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, scale: Tensor, shift: Tensor, groups: int, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        samples, channels, pixels = x.flatten(2).shape if x.dim() > 2 else (*x.shape, 1)
        normalized, mean, r = torch.native_group_norm(x, None, None, samples, channels, pixels, groups, epsilon)
        per_channel = (-1, *[1] * (x.dim() - 2))
        return torch.addcmul(shift.reshape(per_channel), normalized, scale.reshape(per_channel)), normalized, mean, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, scale = inputs[:2]
        ctx.save_for_backward(x, scale, *output[1:])
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, g_normalized: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        x, scale, normalized, mean, r = ctx.saved_tensors
        total, d_scale, d_shift = g_normalized, None, None
        if g is not None:
            pixels = tuple(range(2, x.dim()))
            d_scale = (g * normalized).sum((0, *pixels))
            d_shift = g.sum((0, *pixels))
            scaled = g * scale.reshape(-1, *[1] * len(pixels))
            total = scaled if total is None else scaled + total
        if total is None:
            return None, None, None, None, None
        dx = _Backward.apply(total, x, normalized, mean, r) if ctx.needs_input_grad[0] else None
        return dx, d_scale, d_shift, None, None


class _Backward(torch.autograd.Function):
    """B(g) as a function of g and x; x̂, mean and r are parts of x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, _: Tensor, mean: Tensor, r: Tensor) -> Tensor:
        return _projected(g, x, mean, r)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, x, normalized, mean, r, projected = ctx.saved_tensors
        dg = _projected(v, x, mean, r)
        if not ctx.needs_input_grad[1]:
            return dg, None, None, None, None
        dx = dg * _spread(-r * _group_means(g * normalized, r), x)
        dx = torch.addcmul(dx, projected, _spread(-r * _group_means(v * normalized, r), x))
        dx = torch.addcmul(dx, normalized, _spread(-r * _group_means(v * projected, r), x))
        return dg, dx, None, None, None


def _projected(g: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """B(g)."""
    samples, channels, pixels = x.flatten(2).shape if x.dim() > 2 else (*x.shape, 1)
    found: tuple[Tensor, ...] = torch.ops.aten.native_group_norm_backward(
        g.contiguous(), x, mean, r, None, samples, channels, pixels, r.shape[1], [True, False, False]
    )
    return found[0]


def _group_means(x: Tensor, r: Tensor) -> Tensor:
    """Mean over each group: (N, C, ...) → the shape of r, (N, groups)."""
    by_channel = x.flatten(2).mean(2) if x.dim() > 2 else x
    return by_channel.unflatten(1, (r.shape[1], -1)).mean(2)


def _spread(by_group: Tensor, x: Tensor) -> Tensor:
    """(N, groups) so that it broadcasts over x (N, C, ...)."""
    samples, groups = by_group.shape
    by_channel = by_group[:, :, None].expand(-1, -1, x.shape[1] // groups)
    return by_channel.reshape(samples, x.shape[1], *[1] * (x.dim() - 2))
