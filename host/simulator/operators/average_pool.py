"""AveragePool: the mean of each window."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.graph import Float32Array, Shape
from pmeta.codegen.operators import AveragePool, Window
from pmeta.host.simulator.operators.operator import Operator, Weights
from pmeta.host.simulator.operators.taps import taps_inside


def forward(x: Float32Array, window: Window, count_include_pad: bool) -> Float32Array:
    """y (C, H', W') of x (C, H, W)."""
    size = window.output_size(x.shape[1:], "pool")
    total = np.zeros((x.shape[0], *size), np.float32)
    for tap in taps_inside(window, x.shape[1:], size):
        total[:, *tap.outputs] += x[:, *tap.inputs]
    mean: Float32Array = total / _divisors(window, x.shape, count_include_pad)
    return mean


def input_gradient(gy: Float32Array, window: Window, count_include_pad: bool, input_shape: Shape) -> Float32Array:
    """g(x) (C, H, W): +0, then every output in memory order adds its share to its taps."""
    gx = np.zeros(input_shape, np.float32)
    share = gy / _divisors(window, gx.shape, count_include_pad)
    # Of the outputs that share a pixel, the first reads it through the last tap.
    for tap in reversed(taps_inside(window, gx.shape[1:], gy.shape[1:])):
        gx[:, *tap.inputs] += share[:, *tap.outputs]
    return gx


def _divisors(window: Window, input_shape: Shape, count_include_pad: bool) -> Float32Array:
    """(H', W'): how many taps count for each output."""
    _, height, width = input_shape
    size = window.output_size((height, width), "pool")
    if count_include_pad:
        return np.full(size, window.kernel[0] * window.kernel[1], np.float32)
    count = np.zeros(size, np.float32)
    for tap in taps_inside(window, (height, width), size):
        count[tap.outputs] += 1
    return count


class AveragePoolOperator(Operator[AveragePool, Shape]):
    """Saves the shape of its input."""

    def forward(self, node: AveragePool, weights: Weights, x: Float32Array) -> tuple[Float32Array, Shape]:
        return forward(x, node.window, node.count_include_pad), x.shape

    def input_gradient(self, node: AveragePool, weights: Weights, saved: Shape, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, node.window, node.count_include_pad, saved)
