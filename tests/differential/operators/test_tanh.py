"""Tanh: C kernels ≡ simulator by bytes; simulator ≈ PyTorch.

How far it lies from the exact values is measured by `benchmarks/exp_log_error.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.graph import Float32Array
from pmeta.host.simulator.operators import tanh
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


def assert_same_tanh(x: Float32Array, gy: Float32Array) -> None:
    expected = tanh.forward(x)
    y, g = in_place(x), in_place(gy)
    call("pmeta_tanh_forward", x.size, y)
    assert_same(y, expected)
    call("pmeta_tanh_input_gradient", x.size, expected, g)
    assert_same(g, tanh.input_gradient(gy, expected))


@examples
@given(generators, st.integers(1, 300), flavours)
def test_any_size(rng: np.random.Generator, count: int, flavour: str) -> None:
    assert_same_tanh(values(rng, count, flavour=flavour), values(rng, count, flavour=flavour))


def test_bit_patterns_from_all_over() -> None:
    x = patterns(around=(0.0, 0.625, 9.01, 44.36))
    assert_same_tanh(x, x[::-1].copy())


def test_the_polynomial() -> None:
    """So many that the last bit of every coefficient shows."""
    x = np.linspace(-0.625, 0.625, 200_001, dtype=np.float32)
    assert_same_tanh(x, x[::-1].copy())


def test_it_is_odd_saturates_and_nan_passes() -> None:
    x = np.array([0.0, 1e-45, 1e-3, 0.625, 1, 9.5, 45, 2e38, np.inf], np.float32)
    y = tanh.forward(x)
    assert_same(tanh.forward(-x), -y)
    assert y[:2].tobytes() == x[:2].tobytes()
    assert y[5:].tolist() == [1] * 4
    assert_same(tanh.input_gradient(np.full(9, 4, np.float32), y)[[0, 1, 5, 8]], np.float32([4, 4, 0, 0]))
    assert np.isnan(tanh.forward(np.float32([np.nan]))).all()


def test_it_rises_where_the_formulas_meet() -> None:
    around = np.float32(0.625).view(np.int32) + np.arange(-512, 513, dtype=np.int32)
    y = tanh.forward(around.view(np.float32)).astype(np.float64)
    assert np.diff(y).min() > -(2.0**-23)  # within its error
    assert np.median(np.diff(y[480:545])) > 0


@examples
@given(generators, st.integers(1, 300))
def test_pytorch(rng: np.random.Generator, count: int) -> None:
    """Where exp is used, with E = exp(2a): E + 1 is good to 2.03 + 1 roundings, 2 ÷ (E + 1) < ½ to 1 more; then 1.

    Below 0.625, a + (a·s)·q: one rounding of the sum, and of the rest, which is at most a tenth, eight.
    1 − y²: twice the error of y, and two roundings; a product with g.
    """

    def tangent(torch: Any, x: Any) -> Any:
        return torch.tanh(x)

    x, gy = smooth(rng, count) * np.float32(2), smooth(rng, count)
    y = tanh.forward(x)
    exact, (exact_gx,) = autograd(tangent, [x], gy)
    assert_close(y, exact, 4.1 / 2 + 1, 1.0)
    assert_close(tanh.input_gradient(gy, y), exact_gx, 2 * (4.1 / 2 + 1) + 3, np.abs(gy).max())
