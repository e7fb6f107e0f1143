"""MaxPool: C kernels ≡ simulator by bytes, with the winning taps as they are packed; simulator ≈ PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given

from pmeta.codegen.graph import Float32Array, Shape
from pmeta.codegen.operators import MaxPool, Window
from pmeta.host.simulator.operators import max_pool
from tests.differential.operators.comparison import (
    ORDINARY,
    assert_close,
    assert_same,
    autograd,
    channel_counts,
    examples,
    flavours,
    generators,
    smooth,
    unpacked,
    values,
    windows,
)
from tests.kernel_memory import assert_stays_inside
from tests.kernels import Fenced, call, unwritten
from tests.sanitized import VECTOR_VARIANTS, Flags

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

Size = tuple[int, int]


def drawn_with_ties(rng: np.random.Generator, *shape: int, flavour: str) -> Float32Array:
    return (
        np.round(values(rng, *shape, flavour=flavour), 0)
        if rng.random() < 0.5
        else values(rng, *shape, flavour=flavour)
    )


def tap_memory(node: MaxPool, outputs: int) -> Fenced:
    return unwritten(-(-outputs // (32 // node.tap_bits)), dtype=np.uint32)


def pixels_of(node: MaxPool, taps: npt.NDArray[np.uint32], input_shape: Shape) -> npt.NDArray[np.int64]:
    """(C, H', W') row·W + column of the input that each output takes."""
    window, shape = node.window, node.output_shape(input_shape)
    _, row, column = np.unravel_index(np.arange(taps.size), shape)
    i, j = np.divmod(taps.astype(np.int64), window.kernel[1])
    rows = row * window.stride[0] - window.pad_before[0] + i * window.dilation[0]
    columns = column * window.stride[1] - window.pad_before[1] + j * window.dilation[1]
    return (rows * input_shape[2] + columns).reshape(shape)


def assert_same_pooling(node: MaxPool, x: Float32Array, gy: Float32Array) -> None:
    """Forward with and without taps, the taps themselves, and the input gradient."""
    constants, outputs = node.shape_constants(x.shape), gy.size
    y, alone, taps, gx = unwritten(*gy.shape), unwritten(*gy.shape), tap_memory(node, outputs), unwritten(*x.shape)
    expected, saved = max_pool.forward(x, node.window)
    call("pmeta_max_pool_forward", constants, x, y, taps)
    assert_same(y, expected)
    assert np.array_equal(pixels_of(node, unpacked(taps.array, outputs, node.tap_bits), x.shape), saved.best)
    call("pmeta_max_pool_forward", constants, x, alone, None)
    assert_same(alone, expected)
    call("pmeta_max_pool_input_gradient", constants, gy, taps.array, gx)
    assert_same(gx, max_pool.input_gradient(gy, saved))


@examples
@given(generators, windows(pads_below_kernel=True), channel_counts, flavours)
def test_any_window(
    rng: np.random.Generator, window_and_size: tuple[Window, Size], channels: int, flavour: str
) -> None:
    window, size = window_and_size
    node = MaxPool("pool", "x", "y", window)
    x = drawn_with_ties(rng, channels, *size, flavour=flavour)
    assert_same_pooling(node, x, values(rng, *node.output_shape(x.shape), flavour=flavour))


@pytest.mark.parametrize("kernel", [(1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (5, 5), (7, 7), (12, 11), (16, 17)])
@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_packing(kernel: Size, words: int, more: int) -> None:
    """One output less, as many as, and one more than fill the words, in fields that divide 32 and that do not."""
    node = MaxPool("pool", "x", "y", Window(kernel, stride=kernel))
    outputs = max(1, words * (32 // node.tap_bits) + more)
    rng = np.random.default_rng(outputs)
    x = values(rng, 1, kernel[0], kernel[1] * outputs)
    assert_same_pooling(node, x, values(rng, *node.output_shape(x.shape)))


# Channels, input size, window: rows that vectors of eight fill, or fill in part, of every column or of every other one.
BY_VECTORS = {
    "a first layer": (3, (28, 28), Window((2, 2), (2, 2))),
    "a second": (3, (14, 14), Window((2, 2), (2, 2))),
    "with a rest": (3, (7, 7), Window((2, 2), (2, 2))),
    "one window": (3, (3, 3), Window((2, 2), (2, 2))),
    "exactly a vector": (2, (4, 16), Window((2, 2), (2, 2))),
    "wide": (2, (4, 84), Window((2, 2), (2, 2))),
    "windows that overlap": (3, (9, 15), Window((3, 3), (2, 2))),
    "windows that leave gaps": (2, (9, 19), Window((1, 1), (2, 2))),
    "every column": (2, (5, 13), Window((3, 3), (1, 1))),
    "dilated": (2, (9, 21), Window((2, 2), (1, 2), (2, 3))),
    "tall windows": (3, (9, 12), Window((3, 2), (3, 2))),
}


@pytest.mark.parametrize("case", BY_VECTORS)
@pytest.mark.parametrize("flavour", [ORDINARY, "special"])
def test_rows_of_windows(case: str, flavour: str) -> None:
    channels, size, window = BY_VECTORS[case]
    node, rng = MaxPool("pool", "x", "y", window), np.random.default_rng(channels)
    x = drawn_with_ties(rng, channels, *size, flavour=flavour)
    assert_same_pooling(node, x, values(rng, *node.output_shape(x.shape), flavour=flavour))


@pytest.mark.parametrize("variant", VECTOR_VARIANTS, ids=["longest vectors", "four lanes"])
def test_nothing_is_read_outside(tmp_path: Path, variant: Flags) -> None:
    """Of any tensor, in the layers above."""
    calls = []
    for channels, size, window in BY_VECTORS.values():
        node, shape = MaxPool("pool", "x", "y", window), (channels, *size)
        x, y = unwritten(*shape), unwritten(*node.output_shape(shape))
        constants, taps = node.shape_constants(shape), tap_memory(node, y.array.size)
        calls.append(("pmeta_max_pool_forward", (constants, x, y, taps)))
        calls.append(("pmeta_max_pool_input_gradient", (constants, y, taps, x)))
    assert_stays_inside(calls, tmp_path, variant)


def test_the_first_of_equals_and_the_last_nan_win() -> None:
    node = MaxPool("pool", "x", "y", Window((1, 4), stride=(1, 4)))
    nan = np.nan
    x = np.array([[[2, 5, 5, 1, 1, nan, 7, nan, -0.0, 0.0, -1, 0, nan, 9, 9, 9]]], np.float32)
    taps = tap_memory(node, 4)
    call("pmeta_max_pool_forward", node.shape_constants(x.shape), x, unwritten(1, 1, 4), taps)
    assert unpacked(taps.array, 4, node.tap_bits).tolist() == [1, 3, 0, 0]


@examples
@given(generators, windows(pads_below_kernel=True), channel_counts)
def test_pytorch(rng: np.random.Generator, window_and_size: tuple[Window, Size], channels: int) -> None:
    """A maximum is exact; its gradient sums over the windows that share a pixel."""
    window, size = window_and_size
    (top, left), (bottom, right) = window.pad_before, window.pad_after

    def pooling(torch: Any, x: Any) -> Any:
        padded = torch.nn.functional.pad(x, (left, right, top, bottom), value=-torch.inf)[None]
        return torch.nn.functional.max_pool2d(padded, window.kernel, window.stride, 0, window.dilation)[0]

    x = smooth(rng, channels, *size)
    y, saved = max_pool.forward(x, window)
    gy = smooth(rng, *y.shape)
    exact, (exact_gx,) = autograd(pooling, [x], gy)
    _, (size_gx,) = autograd(pooling, [x], np.abs(gy))
    assert np.array_equal(y, exact)
    taps = window.kernel[0] * window.kernel[1]
    assert_close(max_pool.input_gradient(gy, saved), exact_gx, taps, size_gx.max())
