"""docs/numerics.md transcribed with scalar float32 loops: slow, and too plain to be wrong in the simulator's ways."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from pmeta.codegen.operators import Window

Array = npt.NDArray[np.float32]
ZERO = np.float32(0)


def lane_sum(values: Iterable[np.float32]) -> np.float32:
    lanes = [ZERO] * 8
    for index, value in enumerate(values):
        lanes[index % 8] = lanes[index % 8] + value
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))


def _output_pixels(window: Window, input_shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    rows, columns = window.output_size(input_shape[1:], "scalar")
    for row in range(rows):
        for column in range(columns):
            yield row, column


def _read(
    window: Window, pixel: tuple[int, int], tap: tuple[int, int], shape: tuple[int, ...]
) -> tuple[int, int] | None:
    """The input pixel that an output pixel reads through a tap; None outside the input."""
    row, column = (
        pixel[axis] * window.stride[axis] + tap[axis] * window.dilation[axis] - window.pad_before[axis]
        for axis in range(2)
    )
    return (row, column) if 0 <= row < shape[1] and 0 <= column < shape[2] else None


def _taps(window: Window) -> Iterator[tuple[int, int]]:
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            yield i, j


def conv_forward(x: Array, w: Array, b: Array | None, window: Window) -> Array:
    y = np.zeros((len(w), *window.output_size(x.shape[1:], "scalar")), np.float32)
    for f in range(len(w)):
        for pixel in _output_pixels(window, x.shape):
            acc = ZERO if b is None else b[f]
            for c in range(len(x)):
                for tap in _taps(window):
                    source = _read(window, pixel, tap, x.shape)
                    if source is not None:
                        acc = acc + w[(f, c, *tap)] * x[(c, *source)]
            y[(f, *pixel)] = acc
    return y


def conv_input_gradient(gy: Array, w: Array, window: Window, shape: tuple[int, int, int]) -> Array:
    gx = np.zeros(shape, np.float32)
    for c in range(shape[0]):
        for q in np.ndindex(*shape[1:]):
            acc = ZERO
            for f in range(len(w)):
                for tap in _taps(window):
                    for pixel in _output_pixels(window, shape):
                        if _read(window, pixel, tap, shape) == q:
                            acc = acc + w[(f, c, *tap)] * gy[(f, *pixel)]
            gx[(c, *q)] = acc
    return gx


def conv_weight_gradient(gy: Array, x: Array, window: Window) -> Array:
    d = np.zeros((len(gy), len(x), *window.kernel), np.float32)
    for f in range(len(gy)):
        for c in range(len(x)):
            for tap in _taps(window):
                acc = ZERO
                for pixel in _output_pixels(window, x.shape):
                    source = _read(window, pixel, tap, x.shape)
                    if source is not None:
                        acc = acc + gy[(f, *pixel)] * x[(c, *source)]
                d[(f, c, *tap)] = acc
    return d


def gemm_forward(x: Array, w: Array, b: Array | None) -> Array:
    y = np.zeros(len(w), np.float32)
    for f in range(len(w)):
        acc = ZERO if b is None else b[f]
        for c in range(len(x)):
            acc = acc + w[f, c] * x[c]
        y[f] = acc
    return y


def gemm_input_gradient(gy: Array, w: Array) -> Array:
    gx = np.zeros(w.shape[1], np.float32)
    for c in range(w.shape[1]):
        acc = ZERO
        for f in range(w.shape[0]):
            acc = acc + w[f, c] * gy[f]
        gx[c] = acc
    return gx


def gemm_weight_gradient(gy: Array, x: Array) -> Array:
    return np.array([[ZERO + g * value for value in x] for g in gy], np.float32)


def group_norm(x: Array, groups: int, epsilon: np.float32) -> tuple[Array, Array]:
    """(x̂, rstd per group)."""
    x_hat, rstds = np.zeros_like(x), np.zeros(groups, np.float32)
    size = x.size // groups
    for group in range(groups):
        elements = x.reshape(-1)[group * size : (group + 1) * size]
        mean = lane_sum(elements) / np.float32(size)
        variance = lane_sum((v - mean) * (v - mean) for v in elements) / np.float32(size)
        rstds[group] = np.float32(1) / np.sqrt(variance + epsilon)
        for offset, v in enumerate(elements):
            x_hat.reshape(-1)[group * size + offset] = (v - mean) * rstds[group]
    return x_hat, rstds


def group_norm_input_gradient(gz: Array, scale: Array, x_hat: Array, rstds: Array) -> Array:
    gx = np.zeros_like(gz)
    pixels = gz.shape[1] * gz.shape[2]
    size = gz.size // len(rstds)
    for group, rstd in enumerate(rstds):
        elements = range(group * size, (group + 1) * size)
        gs = {e: gz.reshape(-1)[e] * scale[e // pixels] for e in elements}
        a = lane_sum(gs[e] for e in elements) / np.float32(size)
        b = lane_sum(gs[e] * x_hat.reshape(-1)[e] for e in elements) / np.float32(size)
        for e in elements:
            gx.reshape(-1)[e] = ((gs[e] - a) - x_hat.reshape(-1)[e] * b) * rstd
    return gx


def channel_sum(values: Array) -> Array:
    """(C,): for each channel of (C, ...) the sum from +0 in memory order."""
    sums = np.zeros(len(values), np.float32)
    for c in range(len(values)):
        acc = ZERO
        for value in values[c].reshape(-1):
            acc = acc + value
        sums[c] = acc
    return sums


def max_pool(x: Array, window: Window) -> tuple[Array, npt.NDArray[np.int64]]:
    """(y, the winning pixel of each window as row·W + column)."""
    y = np.zeros((len(x), *window.output_size(x.shape[1:], "scalar")), np.float32)
    best = np.zeros(y.shape, np.int64)
    for c in range(len(x)):
        for pixel in _output_pixels(window, x.shape):
            winner = None
            for tap in _taps(window):
                source = _read(window, pixel, tap, x.shape)
                if source is None:
                    continue
                value = x[(c, *source)]
                if winner is None or value > x[(c, *winner)] or np.isnan(value):
                    winner = source
            assert winner is not None
            y[(c, *pixel)] = x[(c, *winner)]
            best[(c, *pixel)] = winner[0] * x.shape[2] + winner[1]
    return y, best


def max_pool_input_gradient(gy: Array, best: npt.NDArray[np.int64], shape: tuple[int, int, int]) -> Array:
    gx = np.zeros((shape[0], shape[1] * shape[2]), np.float32)
    for output in np.ndindex(*gy.shape):
        c, pixel = output[0], best[output]
        gx[c, pixel] = gx[c, pixel] + gy[output]
    return gx.reshape(shape)


def algorithm_1(pi: Array, rho: int) -> Array:
    """γ of π, ρ in thousandths."""
    channels = len(pi)
    clipped: list[int] = []
    if rho != 0 and channels != 1:
        order = sorted(range(channels), key=lambda c: (np.isnan(pi[c]), 0.0 if np.isnan(pi[c]) else pi[c], c))
        count, total = channels, ZERO
        for position, c in enumerate(order):
            total = total + pi[c]
            if total >= np.float32(rho) / np.float32(1000):
                count = position + 1
                break
        at_least = (rho * channels + 999) // 1000
        clipped = order[: min(max(count, at_least), channels - 1)]
    values = [ZERO if c in clipped else pi[c] for c in range(channels)]
    total = lane_sum(values)
    gamma = [ZERO if c in clipped else (values[c] / total) * np.float32(channels) for c in range(channels)]
    return np.array(gamma, np.float32)
