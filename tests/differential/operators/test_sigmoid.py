"""Sigmoid: C kernels ≡ simulator by bytes; simulator ≈ PyTorch.

How far it lies from the exact values is measured by `benchmarks/exp_log_error.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.errors import UnsupportedError
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators import Sigmoid
from pmeta.host.simulator.operators import sigmoid
from tests.differential.operators.comparison import (
    assert_close,
    assert_same,
    autograd,
    examples,
    flavours,
    generators,
    patterns,
    smooth,
    values,
)
from tests.kernels import call, in_place

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def assert_same_sigmoid(x: Float32Array, gy: Float32Array) -> None:
    expected = sigmoid.forward(x)
    y, g = in_place(x), in_place(gy)
    call("pmeta_sigmoid_forward", x.size, y)
    assert_same(y, expected)
    call("pmeta_sigmoid_input_gradient", x.size, expected, g)
    assert_same(g, sigmoid.input_gradient(gy, expected))


@examples
@given(generators, st.integers(1, 300), flavours)
def test_any_size(rng: np.random.Generator, count: int, flavour: str) -> None:
    assert_same_sigmoid(values(rng, count, flavour=flavour), values(rng, count, flavour=flavour))


def test_bit_patterns_from_all_over() -> None:
    x = patterns(around=(0.0, 1.0, 88.7, 103.9))
    assert_same_sigmoid(x, x[::-1].copy())


def test_it_saturates_and_nan_passes() -> None:
    x = np.array([-np.inf, -3e38, -104, 0.0, -0.0, 104, 3e38, np.inf, np.nan, 1e-45], np.float32)
    y = sigmoid.forward(x)
    assert_same(y, np.array([0, 0, 0, 0.5, 0.5, 1, 1, 1, np.nan, 0.5], np.float32))
    gx = sigmoid.input_gradient(np.full(10, 4, np.float32), y)
    assert_same(gx, np.array([0, 0, 0, 1, 1, 0, 0, 0, np.nan, 1], np.float32))


def test_attributes_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="attribute 'alpha' is not supported"):
        Sigmoid.from_onnx(OnnxNode("Sigmoid", "s", ("x",), ("y",), {"alpha": 1.0}, {}))


@examples
@given(generators, st.integers(1, 300))
def test_pytorch(rng: np.random.Generator, count: int) -> None:
    """exp is good to 1.013 ulp, thus to 2.03 roundings; then a sum and a quotient: less than 5.1 for y.

    |d(y·(1 − y))| ≤ |dy|, three roundings more, of at most ¼ each.
    """

    def logistic(torch: Any, x: Any) -> Any:
        return torch.sigmoid(x)

    x, gy = smooth(rng, count) * np.float32(4), smooth(rng, count)
    y = sigmoid.forward(x)
    exact, (exact_gx,) = autograd(logistic, [x], gy)
    assert_close(y, exact, 5.1, 1.0)
    assert_close(sigmoid.input_gradient(gy, y), exact_gx, 5.1 + 3 / 4 + 0.1, np.abs(gy).max())
