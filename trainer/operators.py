"""Every operator of the graph in PyTorch: what it computes, and the gradients of the weights that it has.

All of it is differentiable twice, runs under vmap, and in float64 as in float32. Where an operator has a kink, its
gradient there is the one of the device (docs/numerics.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pmeta.codegen.errors import UnsupportedError
from pmeta.codegen.graph import Node
from pmeta.codegen.operators import (
    Add,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Flatten,
    Gemm,
    GlobalAveragePool,
    GroupNorm,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Relu,
    Sigmoid,
    Tanh,
    Window,
)
from pmeta.trainer.convolution import CONVOLUTIONS

Tensors = dict[str, Tensor]


def apply(
    node: Node, weights: Mapping[str, Tensor], inputs: Sequence[Tensor], convolution: str
) -> tuple[Tensor, Tensor]:
    """The output (N, ...) of a node, and what its weights are applied to: its input, for a GroupNorm x̂.

    inputs: all activations that it reads, (N, ...). convolution: key of CONVOLUTIONS.
    """
    x = inputs[0]
    match node:
        case Conv():
            y = CONVOLUTIONS[convolution].forward(
                _padded(x, node.window), weights[node.weight], node.window, node.groups
            )
            return y if node.bias is None else y + _per_channel(weights[node.bias], y), x
        case GroupNorm():
            normalized = _normalized(x, node)
            scale, shift = (_per_channel(weights[name], x) for name in node.weight_names)
            return normalized * scale + shift, normalized
        case Gemm():
            y = x @ weights[node.weight].T
            return y if node.bias is None else y + weights[node.bias], x
        case Add():
            return x + inputs[1], x
        case Concat():
            return torch.cat(list(inputs), dim=1), x
    return _weightless(node, x), x


def _weightless(node: Node, x: Tensor) -> Tensor:
    """The output of a node that has one input and no weights."""
    match node:
        case Relu():
            return F.relu(x)
        case LeakyRelu():
            return F.leaky_relu(x, node.alpha)
        case Clip():
            return F.hardtanh(x, node.min, node.max)  # unlike clamp, its gradient is 0 at the bounds
        case HardSwish():
            return x * (F.hardtanh(x + 3, 0.0, 6.0) / 6)  # unlike F.hardswish, its gradient is 0 at -3
        case Sigmoid():
            return torch.sigmoid(x)
        case Tanh():
            return torch.tanh(x)
        case MaxPool():
            window = node.window
            x = _padded(x, window, float("-inf"))
            return F.max_pool2d(x, window.kernel, window.stride, dilation=window.dilation)
        case AveragePool():
            return _average_pool(x, node)
        case GlobalAveragePool():
            return x.mean((2, 3), keepdim=True)
        case Flatten():
            return x.flatten(1)
    raise UnsupportedError(f"cannot train a {type(node).__name__}", f"node '{node.name}'", "use another operator")


def weight_gradients(node: Node, x: Tensor, g: Tensor, convolution: str) -> Tensors:
    """Gradients of a layer's weights, by name, summed over the batch.

    x: what its weights are applied to (`apply`), g: the gradient of its output, both (N, ...).
    """
    match node:
        case Conv():
            weight_gradient = CONVOLUTIONS[convolution].weight_gradient
            dw = weight_gradient(_padded(x, node.window), g, node.window, node.groups)
            return {node.weight: dw} | ({} if node.bias is None else {node.bias: _channel_sums(g)})
        case GroupNorm():
            return {node.scale: _channel_sums(g * x), node.shift: _channel_sums(g)}
        case Gemm():
            return {node.weight: g.T @ x} | ({} if node.bias is None else {node.bias: _channel_sums(g)})
    raise UnsupportedError("has no weights to learn", f"node '{node.name}'", "choose a layer")


def _per_channel(weight: Tensor, x: Tensor) -> Tensor:
    """A weight (C,) so that it broadcasts over x (N, C, ...)."""
    return weight.reshape(-1, *[1] * (x.dim() - 2))


def _channel_sums(g: Tensor) -> Tensor:
    """(N, C, ...) → (C,)."""
    return g.sum([axis for axis in range(g.dim()) if axis != 1])


def _padded(x: Tensor, window: Window, value: float = 0.0) -> Tensor:
    (top, left), (bottom, right) = window.pad_before, window.pad_after
    return F.pad(x, (left, right, top, bottom), value=value) if any((top, left, bottom, right)) else x


def _normalized(x: Tensor, node: GroupNorm) -> Tensor:
    """x̂ = (x − mean)/sqrt(variance + ε) per sample and group of channels; (N, C, ...) in and out."""
    grouped = x.reshape(x.shape[0], node.groups, -1)
    centred = grouped - grouped.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return (centred * torch.rsqrt(variance + node.epsilon)).reshape(x.shape)


def _average_pool(x: Tensor, node: AveragePool) -> Tensor:
    """Means of windows; (N, C, H, W) → (N, C, H', W').

    F.avg_pool2d knows neither dilation nor padding on one side: such windows are two matrix products.
    """
    window = node.window
    if window.dilation == (1, 1) and not any(window.pad_before + window.pad_after):
        return F.avg_pool2d(x, window.kernel, window.stride)
    rows, columns = (_means(node, axis, x) for axis in (0, 1))
    return rows @ x @ columns.T


def _means(node: AveragePool, axis: int, x: Tensor) -> Tensor:
    """(outputs, size) matrix that takes the means along one axis: a mean over a window is one of rows and columns."""
    window, size = node.window, x.shape[2 + axis]
    kernel, stride, before = window.kernel[axis], window.stride[axis], window.pad_before[axis]
    room = size + before + window.pad_after[axis] - window.extent[axis]
    starts = torch.arange(0, room + 1, stride, device=x.device) - before
    offsets = torch.arange(kernel, device=x.device) * window.dilation[axis]
    taps = (starts[:, None] + offsets)[:, :, None]  # (outputs, kernel, 1), some of them outside
    matrix = (taps == torch.arange(size, device=x.device)).sum(1).to(x.dtype)
    return matrix / (kernel if node.count_include_pad else matrix.sum(1, keepdim=True))
