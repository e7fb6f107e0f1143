"""MaxPool: the first largest element of each window, or the last NaN."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmeta.codegen.graph import Float32Array, Shape
from pmeta.codegen.operators import MaxPool, Window
from pmeta.host.simulator.operators.operator import Operator, Weights
from pmeta.host.simulator.operators.taps import taps_inside


@dataclass(frozen=True)
class Pooled:
    """What the backward pass needs."""

    best: npt.NDArray[np.int64]  # (C, H', W'), the pixel that won: row·W + column in its channel of the input
    input_shape: Shape


def forward(x: Float32Array, window: Window) -> tuple[Float32Array, Pooled]:
    """y (C, H', W') of x (C, H, W)."""
    size = window.output_size(x.shape[1:], "pool")
    y = np.zeros((x.shape[0], *size), np.float32)
    best = np.full(y.shape, -1, np.int64)
    pixels = np.arange(x.shape[1] * x.shape[2]).reshape(x.shape[1:])
    for tap in taps_inside(window, x.shape[1:], size):
        target = (slice(None), *tap.outputs)
        candidate = x[:, *tap.inputs]
        replaces = (best[target] < 0) | (candidate > y[target]) | np.isnan(candidate)
        y[target] = np.where(replaces, candidate, y[target])
        best[target] = np.where(replaces, pixels[tap.inputs], best[target])
    return y, Pooled(best, x.shape)


def input_gradient(gy: Float32Array, saved: Pooled) -> Float32Array:
    """g(x) (C, H, W): +0, then every output in memory order adds to the pixel that won."""
    channels = saved.input_shape[0]
    gx = np.zeros((channels, saved.input_shape[1] * saved.input_shape[2]), np.float32)
    # Unlike gx[...] += gy, this adds one after the other where windows share a pixel.
    np.add.at(gx, (np.arange(channels)[:, None, None], saved.best), gy)
    return gx.reshape(saved.input_shape)


class MaxPoolOperator(Operator[MaxPool, Pooled]):
    """Saves which pixels won."""

    def forward(self, node: MaxPool, weights: Weights, x: Float32Array) -> tuple[Float32Array, Pooled]:
        return forward(x, node.window)

    def input_gradient(self, node: MaxPool, weights: Weights, saved: Pooled, gy: Float32Array) -> Float32Array:
        return input_gradient(gy, saved)
