"""GlobalAveragePool: C kernels ≡ simulator by bytes; simulator ≈ PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.errors import ModelError
from pmeta.codegen.operators import GlobalAveragePool
from pmeta.host.simulator.operators import global_average_pool
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
    values,
)
from tests.kernels import call, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def assert_same_pooling(rng: np.random.Generator, channels: int, height: int, width: int, flavour: str) -> None:
    x, gy = values(rng, channels, height, width, flavour=flavour), values(rng, channels, 1, 1, flavour=flavour)
    y, gx = unwritten(channels, 1, 1), unwritten(*x.shape)
    call("pmeta_global_average_pool_forward", channels, height * width, x, y)
    assert_same(y, global_average_pool.forward(x))
    call("pmeta_global_average_pool_input_gradient", channels, height * width, gy, gx)
    assert_same(gx, global_average_pool.input_gradient(gy, x.shape))


@pytest.mark.parametrize("width", [1, 7, 8, 9, 15, 16, 17])
def test_sizes_around_the_lanes(width: int) -> None:
    assert_same_pooling(np.random.default_rng(width), 3, 1, width, ORDINARY)


@examples
@given(generators, channel_counts, st.integers(1, 12), st.integers(1, 12), flavours)
def test_any_size(rng: np.random.Generator, channels: int, height: int, width: int, flavour: str) -> None:
    assert_same_pooling(rng, channels, height, width, flavour)


def test_zeros_infinities_and_nan() -> None:
    x = np.array([[[-0.0, -0.0]], [[np.inf, 1]], [[np.inf, -np.inf]], [[np.nan, 1]], [[1, 4]]], np.float32)
    y = global_average_pool.forward(x)
    assert_same(y, np.array([0, np.inf, np.nan, np.nan, 2.5], np.float32).reshape(5, 1, 1))
    gx = global_average_pool.input_gradient(np.array([[[-0.0]], [[3]]], np.float32), (2, 1, 2))
    assert_same(gx, np.array([[[-0.0, -0.0]], [[1.5, 1.5]]], np.float32))


def test_shapes() -> None:
    node = GlobalAveragePool("pool", "x", "y")
    assert node.output_shape((3, 4, 5)) == (3, 1, 1)
    assert GlobalAveragePool.from_onnx(node.to_onnx()) == node
    with pytest.raises(ModelError, match=r"node 'pool': needs a \(C, H, W\) input, got \(3,\)"):
        node.output_shape((3,))


@examples
@given(generators, channel_counts, st.integers(1, 12), st.integers(1, 12))
def test_pytorch(rng: np.random.Generator, channels: int, height: int, width: int) -> None:
    """A lane adds ⌈HW/8⌉ numbers, three sums combine the lanes, one quotient; backward one quotient."""

    def mean(torch: Any, x: Any) -> Any:
        return torch.nn.functional.adaptive_avg_pool2d(x[None], 1)[0]

    x, gy = smooth(rng, channels, height, width), smooth(rng, channels, 1, 1)
    exact, (exact_gx,) = autograd(mean, [x], gy)
    assert_close(global_average_pool.forward(x), exact, -(-height * width // 8) + 4, np.abs(x).max())
    assert_close(global_average_pool.input_gradient(gy, x.shape), exact_gx, 1.1, np.abs(exact_gx).max())
