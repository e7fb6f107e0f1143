"""Two ways to compute one convolution, and its weight gradient, where each task has its own filters.

Under vmap over tasks `direct` becomes a grouped convolution, the faster way on a CPU; `matmul` unfolds the input and
becomes batched matrix products, which a GPU prefers although it moves nine times the data.
`benchmarks/trainer_speed.py` compares them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from pmeta.codegen.operators import Window


@dataclass(frozen=True)
class Convolution:
    """Inputs come padded, (N, C, H, W); filters: (F, C / groups, kernel_h, kernel_w); gradients: (N, F, H', W')."""

    forward: Callable[[Tensor, Tensor, Window, int], Tensor]  # (input, filters, window, groups) → (N, F, H', W')
    # (input, output gradient, window, groups) → filters' shape
    weight_gradient: Callable[[Tensor, Tensor, Window, int], Tensor]


def _direct_forward(x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
    return F.conv2d(x, filters, stride=window.stride, dilation=window.dilation, groups=groups)


def _direct_weight_gradient(x: Tensor, g: Tensor, window: Window, groups: int) -> Tensor:
    shape = (g.shape[1], x.shape[1] // groups, *window.kernel)
    dw: Tensor = conv2d_weight(x, shape, g, window.stride, dilation=window.dilation, groups=groups)  # type: ignore[no-untyped-call]
    return dw


def _unfolded(x: Tensor, window: Window) -> Tensor:
    """(N, C·kernel_h·kernel_w, H'·W')."""
    return F.unfold(x, window.kernel, dilation=window.dilation, stride=window.stride)


def _by_group(x: Tensor, axis: int, groups: int) -> Tensor:
    """`x` with its channels divided among groups, an axis of their own; as it is where there is one."""
    return x.unflatten(axis, (groups, -1)) if groups > 1 else x


def _matmul_forward(x: Tensor, filters: Tensor, window: Window, groups: int) -> Tensor:
    y = _by_group(filters, 0, groups).flatten(-3) @ _by_group(_unfolded(x, window), 1, groups)
    return y.reshape(x.shape[0], filters.shape[0], *_output_size(x, window))


def _matmul_weight_gradient(x: Tensor, g: Tensor, window: Window, groups: int) -> Tensor:
    # One product over samples and pixels at once: no (N, F, C·9) intermediate.
    columns, g_pixels = (
        _by_group(part, 1, groups).movedim(0, -2).flatten(-2) for part in (_unfolded(x, window), g.flatten(2))
    )
    dw = g_pixels @ columns.mT
    return dw.reshape(g.shape[1], x.shape[1] // groups, *window.kernel)


def _output_size(x: Tensor, window: Window) -> tuple[int, int]:
    height, width = (
        (size - extent) // stride + 1
        for size, extent, stride in zip(x.shape[2:], window.extent, window.stride, strict=True)
    )
    return height, width


CONVOLUTIONS = {
    "direct": Convolution(_direct_forward, _direct_weight_gradient),
    "matmul": Convolution(_matmul_forward, _matmul_weight_gradient),
}
