"""Two ways to compute a convolution and its two gradients, where each task has its own filters.

`direct` calls PyTorch's convolutions; under vmap over tasks they become grouped ones. `matmul` unfolds the input and
becomes matrix products, which a GPU prefers when tasks are batched, although it moves nine times the data.
`benchmarks/trainer_speed.py` compares them.

The three functions of a convolution are each linear in both arguments, and each one's gradients are the other two.
PyTorch differentiates its own gradients by another way (a convolution with the output gradient as the filters) that is
several times slower on a CPU, so `direct` says it itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pmeta.codegen.operators import Window


@dataclass(frozen=True)
class Convolution:
    """x: (N, C, H, W); filters: (F, C / groups, kernel_h, kernel_w); g, gradients of the output: (N, F, H', W')."""

    forward: Callable[[Tensor, Tensor, Window, int], Tensor]  # (x, filters, window, groups) → (N, F, H', W')
    # (g, filters, x, window, groups) → (N, C, H, W); only the shape of x counts
    input_gradient: Callable[[Tensor, Tensor, Tensor, Window, int], Tensor]
    # (g, x, filters, window, groups) → (F, C / groups, kernel_h, kernel_w); only the shape of the filters counts
    weight_gradient: Callable[[Tensor, Tensor, Tensor, Window, int], Tensor]


# --- direct --------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
        padding = window.pad_before
        return F.conv2d(x, filters, None, window.stride, padding, window.dilation, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.geometry = inputs[2:]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, filters = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        dx = _call(_InputGradient, g, filters, x, *ctx.geometry) if wanted[0] else None
        dw = _call(_WeightGradient, g, x, filters, *ctx.geometry) if wanted[1] else None
        return dx, dw, None, None


class _InputGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, filters: Tensor, x: Tensor, window: Window, groups: int) -> Tensor:
        return _gradients(g, x, filters, window, groups, 0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.geometry = inputs[3:]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, filters = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        dg = _call(_Forward, v, filters, *ctx.geometry) if wanted[0] else None
        dw = _call(_WeightGradient, g, v, filters, *ctx.geometry) if wanted[1] else None
        return dg, dw, None, None, None


class _WeightGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(g: Tensor, x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
        return _gradients(g, x, filters, window, groups, 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], _: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.geometry = inputs[3:]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        g, x = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        dg = _call(_Forward, x, v, *ctx.geometry) if wanted[0] else None
        dx = _call(_InputGradient, g, v, x, *ctx.geometry) if wanted[1] else None
        return dg, dx, None, None, None


def _call(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    """`function`, recorded only where that is wanted: recording takes longer than a small convolution."""
    found: Tensor = function.apply(*arguments) if torch.is_grad_enabled() else function.forward(*arguments)
    return found


def _gradients(g: Tensor, x: Tensor, filters: Tensor, window: Window, groups: int, which: int) -> Tensor:
    """Gradient of the input (0) or the filters (1); PyTorch computes both in one function."""
    mask = [which == 0, which == 1, False]
    stride, padding, dilation = window.stride, window.pad_before, window.dilation
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        g, x, filters, None, stride, padding, dilation, False, (0, 0), groups, mask
    )
    return found[which]


def _direct_forward(x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
    return _call(_Forward, x, filters, window, groups)


def _direct_input_gradient(g: Tensor, filters: Tensor, x: Tensor, window: Window, groups: int) -> Tensor:
    return _call(_InputGradient, g, filters, x.detach(), window, groups)


def _direct_weight_gradient(g: Tensor, x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
    return _call(_WeightGradient, g, x, filters.detach(), window, groups)


# --- matmul --------------------------------------------------------------------------------------------------


def _unfolded(x: Tensor, window: Window) -> Tensor:
    """(N, C·kernel_h·kernel_w, H'·W')."""
    return F.unfold(x, window.kernel, window.dilation, window.pad_before, window.stride)


def _by_group(x: Tensor, axis: int, groups: int) -> Tensor:
    """`x` with its channels divided among groups, an axis of their own; as it is where there is one."""
    return x.unflatten(axis, (groups, -1)) if groups > 1 else x


def _matmul_forward(x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
    y = _by_group(filters, 0, groups).flatten(-3) @ _by_group(_unfolded(x, window), 1, groups)
    return y.reshape(x.shape[0], filters.shape[0], *_output_size(x, window))


def _matmul_input_gradient(g: Tensor, filters: Tensor, x: Tensor, window: Window, groups: int) -> Tensor:
    columns = _by_group(filters, 0, groups).flatten(-3).mT @ _by_group(g.flatten(2), 1, groups)
    columns = columns.flatten(1, 2) if groups > 1 else columns
    return F.fold(columns, x.shape[2:], window.kernel, window.dilation, window.pad_before, window.stride)


def _matmul_weight_gradient(g: Tensor, x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
    # One product over samples and pixels at once: no (N, F, C·9) intermediate.
    columns, g_pixels = (
        _by_group(part, 1, groups).movedim(0, -2).flatten(-2) for part in (_unfolded(x, window), g.flatten(2))
    )
    return (g_pixels @ columns.mT).reshape(filters.shape)


def _output_size(x: Tensor, window: Window) -> tuple[int, int]:
    height, width = (
        (size + 2 * padding - extent) // stride + 1
        for size, padding, extent, stride in zip(
            x.shape[2:], window.pad_before, window.extent, window.stride, strict=True
        )
    )
    return height, width


# --- either --------------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "direct": Convolution(_direct_forward, _direct_input_gradient, _direct_weight_gradient),
    "matmul": Convolution(_matmul_forward, _matmul_input_gradient, _matmul_weight_gradient),
}
