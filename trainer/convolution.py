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
    """Inputs come padded: (N, C, H, W). Filters are (F, C, kernel_h, kernel_w), output gradients (N, F, H', W')."""

    forward: Callable[[Tensor, Tensor, Window], Tensor]  # (input, filters, window) → (N, F, H', W')
    weight_gradient: Callable[[Tensor, Tensor, Window], Tensor]  # (input, output gradient, window) → filters' shape


def _direct_forward(x: Tensor, filters: Tensor, window: Window) -> Tensor:
    return F.conv2d(x, filters, stride=window.stride, dilation=window.dilation)


def _direct_weight_gradient(x: Tensor, g: Tensor, window: Window) -> Tensor:
    shape = (g.shape[1], x.shape[1], *window.kernel)
    dw: Tensor = conv2d_weight(x, shape, g, stride=window.stride, dilation=window.dilation)  # type: ignore[no-untyped-call]
    return dw


def _unfolded(x: Tensor, window: Window) -> Tensor:
    """(N, C·kernel_h·kernel_w, H'·W')."""
    return F.unfold(x, window.kernel, dilation=window.dilation, stride=window.stride)


def _matmul_forward(x: Tensor, filters: Tensor, window: Window) -> Tensor:
    y = filters.flatten(1) @ _unfolded(x, window)
    return y.reshape(x.shape[0], filters.shape[0], *_output_size(x, window))


def _matmul_weight_gradient(x: Tensor, g: Tensor, window: Window) -> Tensor:
    # One product over samples and pixels at once: no (N, F, C·9) intermediate.
    columns = _unfolded(x, window).transpose(0, 1).flatten(1)
    dw = g.transpose(0, 1).flatten(1) @ columns.T
    return dw.reshape(g.shape[1], x.shape[1], *window.kernel)


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
