"""Conv, as docs/numerics.md orders its sums: each pass is a product of matrices, one of them what the pixels read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from pmeta.codegen.adaptation import UpdatedPart
from pmeta.codegen.graph import Float32Array, Shape
from pmeta.codegen.operators import Conv, Window
from pmeta.host.simulator import helium
from pmeta.host.simulator.arithmetic import matrix_product, sum_from_zero
from pmeta.host.simulator.operators.operator import (
    BoolArray,
    Contribution,
    Gamma,
    LayerOperator,
    Weights,
    bias_contribution,
    kept_input,
    weight_contribution,
)
from pmeta.host.simulator.operators.taps import Rectangle, Size, Tap, phases, taps_inside
from pmeta.host.simulator.storage import Rounding

MatrixProduct = Callable[[Float32Array, Float32Array, Float32Array, BoolArray], Float32Array]

FEW_SUMS = 64  # pairs of filter and channel; with fewer, a step per pixel costs more than what it computes


def forward(
    x: Float32Array,
    w: Float32Array,
    b: Float32Array | None,
    window: Window,
    groups: int = 1,
    product: MatrixProduct = matrix_product,
) -> Float32Array:
    """y (F, H', W') of x (C, H, W), w (F, C/groups, kernel_h, kernel_w), b (F,): starts at b, then c, i, j."""
    size = window.output_size(x.shape[1:], "conv")
    start = np.zeros(w.shape[0], np.float32) if b is None else b
    taps = taps_inside(window, x.shape[1:], size)
    reads, inside = _reads(x, [(tap.inputs, tap.outputs) for tap in taps], size, groups)
    weights = _weights(w, taps).reshape(groups, w.shape[0] // groups, -1)
    return product(start.reshape(groups, -1), weights, reads, inside).reshape(w.shape[0], *size)


def input_gradient(
    gy: Float32Array,
    w: Float32Array,
    window: Window,
    input_shape: Shape,
    groups: int = 1,
    product: MatrixProduct = matrix_product,
) -> Float32Array:
    """g(x) (C, H, W): a sum from +0 over f, then i, then j ascending; a tap has at most one output per pixel."""
    gx = np.zeros(input_shape, np.float32)
    filters, channels = w.shape[0] // groups, w.shape[1]  # of a group
    start = np.zeros((groups, channels), np.float32)
    for phase in phases(window, input_shape[1:], gy.shape[1:]):
        part = gx[:, *phase.pixels]
        reads, inside = _reads(gy, [(tap.outputs, tap.inputs) for tap in phase.taps], part.shape[1:], groups)
        weights = _weights(w, phase.taps).reshape(groups, filters, channels, -1).swapaxes(1, 2)
        sums = product(start, weights.reshape(groups, channels, -1), reads, inside)
        part[:] = sums.reshape(part.shape)
    return gx


def weight_gradient(
    gy: Float32Array, x: Float32Array, window: Window, groups: int = 1, product: MatrixProduct = matrix_product
) -> Float32Array:
    """d (F, C/groups, kernel_h, kernel_w): a sum from +0 over output pixels, row-major, without taps outside."""
    if product is matrix_product and groups == 1 and gy.shape[0] * x.shape[0] < FEW_SUMS:
        return _few_sums(gy, x, window)
    return _many_sums(gy, x, window, groups, product)


def _few_sums(gy: Float32Array, x: Float32Array, window: Window) -> Float32Array:
    """`weight_gradient` with all pixels of one tap at once."""
    filters, channels = gy.shape[0], x.shape[0]
    d = np.zeros((filters, channels, *window.kernel), np.float32)
    for tap in taps_inside(window, x.shape[1:], gy.shape[1:]):
        pixels = gy[:, *tap.outputs].reshape(filters, 1, -1)
        read = x[:, *tap.inputs].reshape(1, channels, -1)
        d[:, :, tap.row, tap.column] = sum_from_zero(pixels * read)
    return d


def _many_sums(
    gy: Float32Array, x: Float32Array, window: Window, groups: int = 1, product: MatrixProduct = matrix_product
) -> Float32Array:
    """`weight_gradient` pixel by pixel, for all filters, channels and taps at once."""
    taps = taps_inside(window, x.shape[1:], gy.shape[1:])
    reads, inside = _reads(x, [(tap.inputs, tap.outputs) for tap in taps], gy.shape[1:], groups)
    gradients = gy.reshape(groups, gy.shape[0] // groups, -1)
    start = np.zeros(gradients.shape[:2], np.float32)
    sums = product(start, gradients, reads.swapaxes(1, 2), inside.T)
    d = np.zeros((gy.shape[0], x.shape[0] // groups, *window.kernel), np.float32)
    d[:, :, [tap.row for tap in taps], [tap.column for tap in taps]] = sums.reshape(*d.shape[:2], len(taps))
    return d


def _weights(w: Float32Array, taps: Sequence[Tap]) -> Float32Array:
    """(F, C/groups, taps) of w (F, C/groups, kernel_h, kernel_w)."""
    return w[:, :, [tap.row for tap in taps], [tap.column for tap in taps]]


def _reads(
    maps: Float32Array, taps: Sequence[tuple[Rectangle, Rectangle]], size: Size, groups: int
) -> tuple[Float32Array, BoolArray]:
    """(what each pixel of a map of `size` reads, +0 where it reads nothing; where it reads something).

    maps: (C, rows, columns); taps: for each the pixels of `maps` and those that read them, one for one. Results:
    (groups, C/groups · taps, pixels), and (C/groups · taps, pixels), which is the same in every group.
    """
    channels = len(maps)
    reads = np.zeros((channels, len(taps), *size), np.float32)
    inside = np.zeros(reads.shape[1:], np.bool_)
    for tap, (read, reader) in enumerate(taps):
        reads[:, tap, *reader] = maps[:, *read]
        inside[tap, *reader] = True
    pixels = size[0] * size[1]
    return reads.reshape(groups, -1, pixels), np.tile(inside.reshape(-1, pixels), (channels // groups, 1))


class ConvOperator(LayerOperator[Conv, Float32Array]):
    """Saves its input."""

    product: MatrixProduct = staticmethod(matrix_product)

    def forward(self, node: Conv, weights: Weights, x: Float32Array) -> tuple[Float32Array, Float32Array]:
        bias = None if node.bias is None else weights[node.bias]
        return forward(x, weights[node.weight], bias, node.window, node.groups, self.product), x

    def input_gradient(self, node: Conv, weights: Weights, saved: Float32Array, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, weights[node.weight], node.window, saved.shape, node.groups, self.product)

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
        return weight_contribution(weight_gradient(gy, kept, node.window, node.groups, self.product), gamma)


class HeliumConvOperator(ConvOperator):
    """The same with the arithmetic of binary32-helium/1."""

    product: MatrixProduct = staticmethod(helium.matrix_product)

    def contribution(
        self, node: Conv, kept: Float32Array, gy: Float32Array, gamma: Gamma, part: UpdatedPart
    ) -> Contribution:
        contribution = super().contribution(node, kept, gy, gamma, part)
        if part == "bias":
            return contribution
        return replace(contribution, product=helium.product, total=helium.total)
