"""Conv, as docs/numerics.md orders its sums. Loops run over terms; each of their steps treats many sums at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import UpdatedPart
from pmeta.codegen.graph import Float32Array, Shape
from pmeta.codegen.operators import Conv, Window
from pmeta.host.simulator.arithmetic import sum_from_zero
from pmeta.host.simulator.operators.operator import (
    Contribution,
    Gamma,
    LayerOperator,
    Weights,
    bias_contribution,
    kept_input,
    weight_contribution,
)
from pmeta.host.simulator.operators.taps import Size, taps_inside
from pmeta.host.simulator.storage import Rounding

FEW_SUMS = 64  # pairs of filter and channel; with fewer, a step per pixel costs more than what it computes
CACHED_SUMS = 1 << 14


def forward(x: Float32Array, w: Float32Array, b: Float32Array | None, window: Window, groups: int = 1) -> Float32Array:
    """y (F, H', W') of x (C, H, W), w (F, C/groups, kernel_h, kernel_w), b (F,): starts at b, then c, i, j."""
    if groups > 1:
        biases = [None] * groups if b is None else np.split(b, groups)
        parts = zip(np.split(x, groups), np.split(w, groups), biases, strict=True)
        return np.concatenate([forward(*part, window) for part in parts])
    size = window.output_size(x.shape[1:], "conv")
    y = np.zeros((w.shape[0], *size), np.float32)
    if b is not None:
        y[:] = b[:, None, None]
    for c in range(x.shape[0]):
        for tap in taps_inside(window, x.shape[1:], size):
            y[:, *tap.outputs] += w[:, c, tap.row, tap.column, None, None] * x[c, *tap.inputs]
    return y


def input_gradient(
    gy: Float32Array, w: Float32Array, window: Window, input_shape: Shape, groups: int = 1
) -> Float32Array:
    """g(x) (C, H, W): a sum from +0 over f, then i, then j ascending; a tap has at most one output per pixel."""
    if groups > 1:
        parts, shape = zip(np.split(gy, groups), np.split(w, groups), strict=True), (w.shape[1], *input_shape[1:])
        return np.concatenate([input_gradient(*part, window, shape) for part in parts])
    gx = np.zeros(input_shape, np.float32)
    for f in range(w.shape[0]):
        for tap in taps_inside(window, input_shape[1:], gy.shape[1:]):
            gx[:, *tap.inputs] += w[f, :, tap.row, tap.column, None, None] * gy[f, *tap.outputs]
    return gx


def weight_gradient(gy: Float32Array, x: Float32Array, window: Window, groups: int = 1) -> Float32Array:
    """d (F, C/groups, kernel_h, kernel_w): a sum from +0 over output pixels, row-major, without taps outside."""
    if groups > 1:
        parts = zip(np.split(gy, groups), np.split(x, groups), strict=True)
        return np.concatenate([weight_gradient(*part, window) for part in parts])
    sums = _few_sums if gy.shape[0] * x.shape[0] < FEW_SUMS else _many_sums
    return sums(gy, x, window)


def _few_sums(gy: Float32Array, x: Float32Array, window: Window) -> Float32Array:
    """`weight_gradient` with all pixels of one tap at once."""
    filters, channels = gy.shape[0], x.shape[0]
    d = np.zeros((filters, channels, *window.kernel), np.float32)
    for tap in taps_inside(window, x.shape[1:], gy.shape[1:]):
        pixels = gy[:, *tap.outputs].reshape(filters, 1, -1)
        read = x[:, *tap.inputs].reshape(1, channels, -1)
        d[:, :, tap.row, tap.column] = sum_from_zero(pixels * read)
    return d


def _many_sums(gy: Float32Array, x: Float32Array, window: Window) -> Float32Array:
    """`weight_gradient` pixel by pixel, for as many sums at once as the processor's cache holds."""
    filters, pixels = gy.shape[0], gy[0].size
    reads, inside = _reads(x, window, gy.shape[1:])
    whole = np.logical_and.reduce(inside, axis=1)
    gradients = np.ascontiguousarray(gy.reshape(filters, pixels).T)
    d = np.zeros((filters, reads.shape[1]), np.float32)
    block = max(1, CACHED_SUMS // reads.shape[1])
    for first in range(0, filters, block):
        part = d[first : first + block]
        terms = np.empty_like(part)
        for pixel in range(pixels):
            np.multiply(gradients[pixel, first : first + block, None], reads[pixel], out=terms)
            if whole[pixel]:
                part += terms
            else:
                np.add(part, terms, out=part, where=inside[pixel])
    return d.reshape(filters, x.shape[0], *window.kernel)


def _reads(x: Float32Array, window: Window, size: Size) -> tuple[Float32Array, npt.NDArray[np.bool_]]:
    """What each output pixel reads of x (C, H, W), and which of it lies inside: both (pixels, C·kernel_h·kernel_w)."""
    reads = np.zeros((*size, x.shape[0], *window.kernel), np.float32)
    inside = np.zeros(reads.shape, bool)
    for tap in taps_inside(window, x.shape[1:], size):
        reads[*tap.outputs, :, tap.row, tap.column] = np.moveaxis(x[:, *tap.inputs], 0, -1)
        inside[*tap.outputs, :, tap.row, tap.column] = True
    pixels = size[0] * size[1]
    return reads.reshape(pixels, -1), inside.reshape(pixels, -1)


class ConvOperator(LayerOperator[Conv, Float32Array]):
    """Saves its input."""

    def forward(self, node: Conv, weights: Weights, x: Float32Array) -> tuple[Float32Array, Float32Array]:
        bias = None if node.bias is None else weights[node.bias]
        return forward(x, weights[node.weight], bias, node.window, node.groups), x

    def input_gradient(self, node: Conv, weights: Weights, saved: Float32Array, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, weights[node.weight], node.window, saved.shape, node.groups)

    def kept_for_weights(
        self, saved: Float32Array, rounded: Rounding, fw: Float32Array | None, of_sample: bool
    ) -> Float32Array:
        return kept_input(saved, rounded, fw, of_sample)

    def attended(self, saved: Float32Array) -> Float32Array:
        return saved

    def contribution(
        self, node: Conv, kept: Float32Array, gy: Float32Array, gamma: Gamma, part: UpdatedPart
    ) -> Contribution:
        if part == "bias":
            return bias_contribution(gy, gamma)
        return weight_contribution(weight_gradient(gy, kept, node.window, node.groups), gamma)
