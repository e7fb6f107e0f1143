"""Every operator of the graph in PyTorch: what it computes, and the gradients of the weights that it has.

All of it is differentiable twice, runs under vmap, and in float64 as in float32. Where an operator has a kink, its
gradient there is the one of the device (docs/numerics.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
from pmeta.trainer import normalization
from pmeta.trainer.attention import scaled
from pmeta.trainer.convolution import CONVOLUTIONS
from pmeta.trainer.network_variants import BatchNorm
from pmeta.trainer.normalization import Scattered

Tensors = dict[str, Tensor]
Gamma = Callable[[str, Tensor], Tensor | None]  # (layer, what it attends to) → γ (N, C); None: no attention


@dataclass(frozen=True)
class Applied:
    """What a node computed, and the way back."""

    output: Tensor  # y, (N, ...)
    weighed: Tensor  # what the node's weights are applied to, (N, ...): its input, for a GroupNorm x̂
    input_gradients: Callable[[Tensor], Sequence[Tensor]]  # gradient of y → gradient of every input
    scattered_gradient: Callable[[Tensor], Scattered | None] = lambda _: None  # a max-pool's, in its own form
    expect: Callable[[Scattered], None] = lambda _: None  # told of a gradient of y before it is used
    weight_gradients: Callable[[Tensor], Tensors] | None = None  # `weight_gradients`, where that has a shorter way


def apply(node: Node, weights: Mapping[str, Tensor], inputs: Sequence[Tensor], convolution: str) -> Applied:
    """inputs: all activations that the node reads, (N, ...). convolution: key of CONVOLUTIONS."""
    x = inputs[0]
    match node:
        case Conv():
            return _convolved(node, weights, x, convolution)
        case GroupNorm():
            return _group_normalized(node, weights, x)
        case BatchNorm():
            return _batch_normalized(node, weights, x)
        case Gemm():
            weight = weights[node.weight]
            y = x @ weight.T
            return Applied(y if node.bias is None else y + weights[node.bias], x, lambda g: [g @ weight])
        case Add():
            return Applied(x + inputs[1], x, lambda g: [g, g])
        case Concat():
            return Applied(torch.cat(list(inputs), 1), x, lambda g: g.split([part.shape[1] for part in inputs], 1))
        case Relu():
            y = F.relu(x)
            return Applied(y, x, lambda g: [torch.ops.aten.threshold_backward(g, y.detach(), 0)])
        case Flatten():
            return Applied(x.flatten(1), x, lambda g: [g.reshape(x.shape)])
        case MaxPool():
            return _max_pooled(node, x)
    return Applied(_weightless(node, x), x, lambda g: torch.func.vjp(partial(_weightless, node), x)[1](g))


def weight_gradients(node: Node, weights: Mapping[str, Tensor], x: Tensor, g: Tensor, convolution: str) -> Tensors:
    """Gradients of a layer's weights, by name, summed over the batch.

    x: what its weights are applied to (`Applied.weighed`), g: the gradient of its output, both (N, ...).
    """
    match node:
        case Conv():
            weight_gradient = CONVOLUTIONS[convolution].weight_gradient
            x, window = _evenly_padded(x, node.window)
            dw = weight_gradient(g, x, weights[node.weight], window, node.groups)
            return {node.weight: dw} | ({} if node.bias is None else {node.bias: _channel_sums(g)})
        case GroupNorm() | BatchNorm():
            return {node.scale: _channel_sums(g * x), node.shift: _channel_sums(g)}
        case Gemm():
            return {node.weight: g.T @ x} | ({} if node.bias is None else {node.bias: _channel_sums(g)})
    raise UnsupportedError("has no weights to learn", f"node '{node.name}'", "choose a layer")


def reweighted(node: Node, gradients: Tensors, gamma_x: Tensor | None, gamma_g: Tensor | None) -> Tensors:
    """`weight_gradients` of x with channel c times gamma_x[c] and g with channel f times gamma_g[f].

    They are linear in both (Eqs. 12 and 13), and the gradients are far smaller than x and g.
    """
    first, *others = node.weight_names
    gradient = gradients[first]
    if gamma_x is not None:
        match node:
            case Conv():
                by_filter = gamma_x.reshape(node.groups, 1, -1).expand(-1, gradient.shape[0] // node.groups, -1)
                gradient = gradient * by_filter.reshape(*gradient.shape[:2], 1, 1)
            case _:
                gradient = gradient * gamma_x
    result = {first: gradient} | {name: gradients[name] for name in others}
    if gamma_g is None:
        return result
    return {name: value * gamma_g.reshape(-1, *[1] * (value.dim() - 1)) for name, value in result.items()}


def apply_sparse(
    node: Node, weights: Mapping[str, Tensor], inputs: Sequence[Tensor], convolution: str, gamma: Gamma
) -> Applied:
    """`apply`, but γ^fw weighs what the node's weights are applied to: y is computed from the sparse map.

    γ counts as constant on the way back. It is an ablation (Table 7): p-Meta's own passes are dense.
    """
    if isinstance(node, GroupNorm | BatchNorm):
        dense = apply(node, weights, inputs, convolution)
        of_normalized = gamma(node.name, dense.weighed)
        if of_normalized is None:
            return dense
        sparse = scaled(dense.weighed, of_normalized)
        scale, shift = (_per_channel(weights[name], sparse) for name in node.weight_names)
        return Applied(sparse * scale + shift, sparse, lambda g: dense.input_gradients(scaled(g, of_normalized)))
    found = gamma(node.name, inputs[0]) if node.is_layer else None
    if found is None:
        return apply(node, weights, inputs, convolution)
    applied = apply(node, weights, [scaled(inputs[0], found)], convolution)
    return replace(applied, input_gradients=lambda g: [scaled(applied.input_gradients(g)[0], found)])


def _group_normalized(node: GroupNorm, weights: Mapping[str, Tensor], x: Tensor) -> Applied:
    """The gradients of input and weights come from one pass, whichever of them is asked for first."""
    scale, shift = (weights[name] for name in node.weight_names)
    y, normalized, mean, r = normalization.group_norm(x, scale, shift, node.groups, node.epsilon)
    found: list[tuple[Tensor, tuple[Tensor, Tensor, Tensor]]] = []

    def gradients(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not found or found[-1][0] is not g:
            found[:] = [(g, normalization.gradients(g, x, normalized, mean, r, scale))]
        return found[-1][1]

    def expect(g: Scattered) -> None:
        if torch.is_grad_enabled():
            arguments = (g, x, normalized, mean, r, scale)
            found[:] = [(g.dense, normalization.gradients_of_scattered(*arguments))]

    return Applied(
        y, normalized, lambda g: [gradients(g)[0]], expect=expect,
        weight_gradients=lambda g: dict(zip(node.weight_names, gradients(g)[1:], strict=True)),
    )  # fmt: skip


def _convolved(node: Conv, weights: Mapping[str, Tensor], x: Tensor, convolution: str) -> Applied:
    functions, filters = CONVOLUTIONS[convolution], weights[node.weight]
    padded, window = _evenly_padded(x, node.window)
    y = functions.forward(padded, filters, window, node.groups)

    def input_gradients(g: Tensor) -> Sequence[Tensor]:
        dx = functions.input_gradient(g, filters, padded, window, node.groups)
        return [dx if padded is x else _cropped(dx, node.window, x)]

    return Applied(y if node.bias is None else y + _per_channel(weights[node.bias], y), x, input_gradients)


def _max_pooled(node: MaxPool, x: Tensor) -> Applied:
    """Pixels are looked up by index, so that this and its gradient are a gather and a scatter.

    The indices come from a copy in which the channels of a pixel lie together: PyTorch's pooling is vectorized over
    channels only there, which makes it four times as fast on a CPU, the copy included.
    """
    window = node.window
    padded = _padded(x, window, float("-inf"))
    by_pixel = padded.detach().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    _, index = F.max_pool2d(by_pixel, window.kernel, window.stride, 0, window.dilation, return_indices=True)
    flat = index.contiguous().flatten(2)

    def input_gradients(g: Tensor) -> Sequence[Tensor]:
        # Windows that overlap may choose the same pixel.
        dx = torch.zeros_like(padded).flatten(2).scatter_add_(2, flat, g.flatten(2))
        return [_cropped(dx.reshape(padded.shape), window, x)]

    def scattered_gradient(g: Tensor) -> Scattered | None:
        return Scattered(g.flatten(2), flat, input_gradients(g)[0]) if padded is x else None

    y = padded.flatten(2).gather(2, flat).reshape(index.shape)
    return Applied(y, x, input_gradients, scattered_gradient)


def _weightless(node: Node, x: Tensor) -> Tensor:
    """The output of a node that has one input and no weights."""
    match node:
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
        case AveragePool():
            return _average_pool(x, node)
        case GlobalAveragePool():
            return x.mean((2, 3), keepdim=True)
    raise UnsupportedError(f"cannot train a {type(node).__name__}", f"node '{node.name}'", "use another operator")


def _per_channel(weight: Tensor, x: Tensor) -> Tensor:
    """A weight (C,) so that it broadcasts over x (N, C, ...)."""
    return weight.reshape(-1, *[1] * (x.dim() - 2))


def _channel_sums(g: Tensor) -> Tensor:
    """(N, C, ...) → (C,)."""
    return g.sum([axis for axis in range(g.dim()) if axis != 1])


def _padded(x: Tensor, window: Window, value: float = 0.0) -> Tensor:
    (top, left), (bottom, right) = window.pad_before, window.pad_after
    return F.pad(x, (left, right, top, bottom), value=value) if any((top, left, bottom, right)) else x


def _cropped(padded: Tensor, window: Window, x: Tensor) -> Tensor:
    """The part of `padded` that lies where `x` lay before `_padded`."""
    top, left = window.pad_before
    return padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]


def _evenly_padded(x: Tensor, window: Window) -> tuple[Tensor, Window]:
    """x and a window that pads the same on both sides, as PyTorch's convolutions do: as they are, or padded here."""
    if window.pad_before == window.pad_after:
        return x, window
    return _padded(x, window), replace(window, pad_before=(0, 0), pad_after=(0, 0))


def _batch_normalized(node: BatchNorm, weights: Mapping[str, Tensor], x: Tensor) -> Applied:
    """By the statistics of every micro-batch and channel."""
    normalize = partial(_micro_batches_normalized, samples=node.samples or len(x), epsilon=node.epsilon)
    normalized, back, *_ = torch.func.vjp(normalize, x)
    scale, shift = (_per_channel(weights[name], x) for name in node.weight_names)
    return Applied(normalized * scale + shift, normalized, lambda g: back(g * scale))


def _micro_batches_normalized(x: Tensor, samples: int, epsilon: float) -> Tensor:
    """x̂ (N, C, ...) of x; the last micro-batch may have fewer samples."""
    whole = len(x) // samples * samples
    parts = []
    for part in (x[:whole], x[whole:]):
        if len(part):
            batches = part.reshape(-1, min(samples, len(part)), *x.shape[1:])
            axes = [axis for axis in range(1, batches.dim()) if axis != 2]
            centred = batches - batches.mean(axes, keepdim=True)
            variance = (centred * centred).mean(axes, keepdim=True)
            parts.append((centred * torch.rsqrt(variance + epsilon)).reshape(part.shape))
    return torch.cat(parts)


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
