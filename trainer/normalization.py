"""Group normalization and its gradients, all differentiable, in few passes over memory.

Per sample and group of M elements: x̂ = r·(x − mean), r = 1/sqrt(variance + ε), y = s·x̂ + t. Given g, the gradient of y,
that of x is B(s·g) with B(h) = r·(h − mean(h) − x̂·mean(h·x̂)), those of s and t are Σ g·x̂ and Σ g. B is linear and
symmetric. So, v, v_s and v_t being the gradients of these three, that of g is s·B(v) + v_s·x̂ + v_t, that of s is
Σ g·B(v), and that of x, which x̂ and r depend on,

    B(g·(v_s − s·r·mean(v·x̂))) − r·mean(s·g·x̂)·B(v) − r·x̂·mean(s·g·B(v)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def group_norm(x: Tensor, scale: Tensor, shift: Tensor, groups: int, epsilon: float) -> tuple[Tensor, ...]:
    """(y, x̂, mean, r): y = x̂·scale + shift and x̂ like x, (N, C, ...); mean and r: (N, groups), no gradient."""
    found: tuple[Tensor, ...] = _Forward.apply(x, scale, shift, groups, epsilon)  # type: ignore[no-untyped-call]
    return found


def gradients(
    g: Tensor, x: Tensor, normalized: Tensor, mean: Tensor, r: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, scale and shift, given that of y; `normalized`, `mean` and `r` are what `group_norm` gave."""
    if not torch.is_grad_enabled():  # recording takes longer than small maps do
        return _backward(g, x, mean, r, scale)
    found: tuple[Tensor, Tensor, Tensor] = _Backward.apply(  # type: ignore[no-untyped-call]
        g, x, normalized.detach(), mean, r, scale
    )
    return found


@dataclass(frozen=True)
class Scattered:
    """A gradient that a max-pool gave its input: few values among zeros."""

    values: Tensor  # (N, C, windows)
    index: Tensor  # of each window's pixel among the pixels of `dense`; windows that overlap may share one
    dense: Tensor  # the same as a map, (N, C, H, W)


def gradients_of_scattered(
    g: Scattered, x: Tensor, normalized: Tensor, mean: Tensor, r: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`gradients` of g.dense, differentiated by g.values: a quarter of the elements, for windows of 2x2."""
    found: tuple[Tensor, Tensor, Tensor] = _ScatteredBackward.apply(  # type: ignore[no-untyped-call]
        g.values, g.index, g.dense.detach(), x, normalized.detach(), mean, r, scale
    )
    return found


class _Forward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, scale: Tensor, shift: Tensor, groups: int, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        normalized, mean, r = torch.native_group_norm(x, None, None, *_sizes(x), groups, epsilon)
        return torch.addcmul(_spread(shift, x), normalized, _spread(scale, x)), normalized, mean, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, scale = inputs[:2]
        ctx.save_for_backward(x, scale, *output[1:])
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None, g_normalized: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        x, scale, normalized, mean, r = ctx.saved_tensors
        dx: Tensor | None = None
        d_scale = d_shift = None
        if g is not None:
            dx, d_scale, d_shift = gradients(g, x, normalized, mean, r, scale)
        if g_normalized is not None:
            more = gradients(g_normalized, x, normalized, mean, r, torch.ones_like(scale))[0]
            dx = more if dx is None else dx + more
        return dx, d_scale, d_shift, None, None


class _Backward(torch.autograd.Function):
    """B(s·g), Σ g·x̂ and Σ g, as functions of g, x and s; x̂, mean and r are parts of x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        g: Tensor, x: Tensor, _: Tensor, mean: Tensor, r: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _backward(g, x, mean, r, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, v: Tensor | None, v_scale: Tensor | None, v_shift: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        g, x, normalized, mean, r, scale = ctx.saved_tensors
        v_scale = torch.zeros_like(scale) if v_scale is None else v_scale
        v_shift = torch.zeros_like(scale) if v_shift is None else v_shift
        dg = torch.addcmul(_spread(v_shift, x), normalized, _spread(v_scale, x))
        if v is None:
            return dg, _projected(g * _spread(v_scale, x), x, mean, r), None, None, None, None
        projected = _projected(v, x, mean, r)
        dg = torch.addcmul(dg, projected, _spread(scale, x))
        products = _channel_sums(g * projected)  # (N, C), as all below
        of_v, of_g = _channel_sums(v * normalized), scale * _channel_sums(g * normalized)
        factor = v_scale - scale * _group_means(of_v, r, x)
        dx = _projected(g * _spread(factor, x), x, mean, r)
        dx = torch.addcmul(dx, projected, _spread(-_group_means(of_g, r, x), x))
        dx = torch.addcmul(dx, normalized, _spread(-_group_means(scale * products, r, x), x))
        return dg, dx, None, None, None, products.sum(0)


class _ScatteredBackward(torch.autograd.Function):
    """`_Backward` for a g that is zero but at some pixels."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        _: Tensor, __: Tensor, dense: Tensor, x: Tensor, ___: Tensor, mean: Tensor, r: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _backward(dense, x, mean, r, scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: tuple[Tensor, ...]) -> None:
        values, index, _dense, *rest = inputs
        ctx.save_for_backward(values, index, *rest)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, v: Tensor | None, v_scale: Tensor | None, v_shift: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        g, index, x, normalized, mean, r, scale = ctx.saved_tensors
        v_scale = torch.zeros_like(scale) if v_scale is None else v_scale
        v_shift = torch.zeros_like(scale) if v_shift is None else v_shift
        seen = normalized.flatten(2).gather(2, index)
        dg = torch.addcmul(_spread(v_shift, g), seen, _spread(v_scale, g))
        if v is None:
            return dg, None, None, _projected(_scattered(g * _spread(v_scale, g), index, x), x, mean, r), *[None] * 4
        projected = _projected(v, x, mean, r)
        seen_projected = projected.flatten(2).gather(2, index)
        dg = torch.addcmul(dg, seen_projected, _spread(scale, g))
        products = _channel_sums(g * seen_projected)  # (N, C), as all below
        of_v, of_g = _channel_sums(v * normalized), scale * _channel_sums(g * seen)
        factor = v_scale - scale * _group_means(of_v, r, x)
        dx = _projected(_scattered(g * _spread(factor, g), index, x), x, mean, r)
        dx = torch.addcmul(dx, projected, _spread(-_group_means(of_g, r, x), x))
        dx = torch.addcmul(dx, normalized, _spread(-_group_means(scale * products, r, x), x))
        return dg, None, None, dx, None, None, None, products.sum(0)


def _scattered(values: Tensor, index: Tensor, x: Tensor) -> Tensor:
    """A map like x, zero but for the values, (N, C, windows), at their pixels."""
    return torch.zeros_like(x).flatten(2).scatter_add_(2, index, values).reshape(x.shape)


def _backward(g: Tensor, x: Tensor, mean: Tensor, r: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """(B(s·g), Σ g·x̂, Σ g); s = 1 and B alone where there is no scale."""
    groups, wanted = r.shape[1], scale is not None
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_group_norm_backward(
        g.contiguous(), x, mean, r, scale, *_sizes(x), groups, [True, wanted, wanted]
    )
    return found


def _projected(g: Tensor, x: Tensor, mean: Tensor, r: Tensor) -> Tensor:
    """B(g)."""
    return _backward(g, x, mean, r, None)[0]


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """(N, C, pixels) of x (N, C, ...)."""
    samples, channels = x.shape[:2]
    return samples, channels, x[0, 0].numel()


def _channel_sums(x: Tensor) -> Tensor:
    """(N, C, ...) → (N, C)."""
    return x.flatten(2).sum(2) if x.dim() > 2 else x


def _group_means(sums: Tensor, r: Tensor, x: Tensor) -> Tensor:
    """r · mean over each group of x's elements, given sums by channel: (N, C), the channels of a group alike."""
    channels = x.shape[1] // r.shape[1]
    elements = channels * x[0, 0].numel()
    by_group: Tensor = r * sums.unflatten(1, (r.shape[1], channels)).sum(2) / elements
    return by_group[:, :, None].expand(-1, -1, channels).flatten(1)


def _spread(by_channel: Tensor, x: Tensor) -> Tensor:
    """(C,) or (N, C) so that it broadcasts over x (N, C, ...)."""
    return by_channel.reshape(*by_channel.shape, *[1] * (x.dim() - 2))
