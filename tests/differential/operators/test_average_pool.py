"""AveragePool: C kernels ≡ simulator by bytes; simulator ≈ PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators import AveragePool, Window
from pmeta.host.simulator.operators import average_pool
from tests.differential.operators.comparison import (
    assert_close,
    assert_same,
    autograd,
    channel_counts,
    examples,
    flavours,
    generators,
    smooth,
    values,
    windows,
)
from tests.kernels import call, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

Size = tuple[int, int]


def assert_same_pooling(node: AveragePool, x: Float32Array, gy: Float32Array) -> None:
    constants = node.shape_constants(x.shape)
    y, gx = unwritten(*gy.shape), unwritten(*x.shape)
    call("pmeta_average_pool_forward", constants, x, y)
    assert_same(y, average_pool.forward(x, node.window, node.count_include_pad))
    call("pmeta_average_pool_input_gradient", constants, gy, gx)
    assert_same(gx, average_pool.input_gradient(gy, node.window, node.count_include_pad, x.shape))


@examples
@given(generators, windows(pads_below_kernel=True), channel_counts, st.booleans(), flavours)
def test_any_window(
    rng: np.random.Generator,
    window_and_size: tuple[Window, Size],
    channels: int,
    count_include_pad: bool,
    flavour: str,
) -> None:
    window, size = window_and_size
    node = AveragePool("pool", "x", "y", window, count_include_pad)
    x = values(rng, channels, *size, flavour=flavour)
    assert_same_pooling(node, x, values(rng, *node.output_shape(x.shape), flavour=flavour))


@pytest.mark.parametrize("count_include_pad", [False, True])
def test_windows_that_overlap_often(count_include_pad: bool) -> None:
    """Many outputs that add to each pixel, of very different size: another order would show."""
    rng = np.random.default_rng(0)
    window = Window((5, 4), dilation=(1, 2), pad_before=(4, 3), pad_after=(2, 3))
    node = AveragePool("pool", "x", "y", window, count_include_pad)
    x = values(rng, 3, 9, 11)
    assert_same_pooling(node, x, values(rng, *node.output_shape(x.shape)))


def test_what_is_divided_by() -> None:
    """A window of three over two pixels, each with one neighbour in the padding."""
    x = np.array([[[6, -0.0]], [[np.inf, 1]], [[np.nan, 1]], [[-0.0, -0.0]]], np.float32)
    window = Window((1, 3), pad_before=(0, 1), pad_after=(0, 1))
    inside = np.array([[[3, 3]], [[np.inf, np.inf]], [[np.nan, np.nan]], [[0, 0]]], np.float32)
    assert_same(average_pool.forward(x, window, False), inside)
    assert_same(average_pool.forward(x, window, True)[:1], np.array([[[2, 2]]], np.float32))
    gy = np.array([[[6, 12]]], np.float32)
    assert average_pool.input_gradient(gy, window, False, (1, 1, 2)).tolist() == [[[9, 9]]]
    assert average_pool.input_gradient(gy, window, True, (1, 1, 2)).tolist() == [[[6, 6]]]


def test_a_file() -> None:
    def read(**attributes: Any) -> AveragePool:
        return AveragePool.from_onnx(OnnxNode("AveragePool", "pool", ("x",), ("y",), attributes, {}))

    assert read(kernel_shape=[2, 3]) == AveragePool("pool", "x", "y", Window((2, 3)), False)
    node = read(kernel_shape=[2, 3], strides=[1, 2], pads=[0, 1, 1, 2], dilations=[1, 2], count_include_pad=1)
    assert node == AveragePool("pool", "x", "y", Window((2, 3), (1, 2), (1, 2), (0, 1), (1, 2)), True)
    assert AveragePool.from_onnx(node.to_onnx()) == node
    with pytest.raises(ModelError, match="ceil_mode = 1 is not supported"):
        read(kernel_shape=[2, 2], ceil_mode=1)
    with pytest.raises(ModelError, match=r"needs a \(C, H, W\) input"):
        node.output_shape((8,))
    with pytest.raises(ModelError, match="lies outside the input of"):
        read(kernel_shape=[2, 2], pads=[2, 0, 0, 0]).output_shape((1, 4, 4))


@examples
@given(generators, windows(pads_below_kernel=True), channel_counts, st.booleans())
def test_pytorch(
    rng: np.random.Generator, window_and_size: tuple[Window, Size], channels: int, count_include_pad: bool
) -> None:
    """A mean of n numbers: n roundings. A pixel's gradient: a quotient and a sum of at most as many."""
    window, size = window_and_size
    (top, left), (bottom, right) = window.pad_before, window.pad_after

    def pooling(torch: Any, x: Any) -> Any:
        ones = torch.ones(channels, 1, *window.kernel, dtype=x.dtype)

        def sums(values: Any) -> Any:
            padded = torch.nn.functional.pad(values, (left, right, top, bottom))[None]
            stride, dilation = window.stride, window.dilation
            return torch.nn.functional.conv2d(padded, ones, None, stride, 0, dilation, groups=channels)[0]

        return sums(x) / (ones[0].numel() if count_include_pad else sums(torch.ones_like(x)))

    x = smooth(rng, channels, *size)
    y = average_pool.forward(x, window, count_include_pad)
    gy = smooth(rng, *y.shape)
    exact, (exact_gx,) = autograd(pooling, [x], gy)
    _, (size_gx,) = autograd(pooling, [x], np.abs(gy))
    taps = window.kernel[0] * window.kernel[1]
    assert_close(y, exact, taps + 1, np.abs(x).max())
    assert_close(average_pool.input_gradient(gy, window, count_include_pad, x.shape), exact_gx, taps + 1, size_gx.max())


@pytest.mark.parametrize("count_include_pad", [False, True])
def test_pytorch_pools_alike(count_include_pad: bool) -> None:
    """With PyTorch's own operator, which knows neither dilation nor one-sided padding."""

    def pooling(torch: Any, x: Any) -> Any:
        return torch.nn.functional.avg_pool2d(x[None], 3, 2, 1, count_include_pad=count_include_pad)[0]

    x = smooth(np.random.default_rng(0), 3, 7, 8)
    window = Window((3, 3), stride=(2, 2), pad_before=(1, 1), pad_after=(1, 1))
    exact, _ = autograd(pooling, [x])
    assert_close(average_pool.forward(x, window, count_include_pad), exact, 10, np.abs(x).max())
