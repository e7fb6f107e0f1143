"""HardSwish: C kernels ≡ simulator by bytes; simulator ≈ PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.graph import Float32Array
from pmeta.host.simulator.operators import hard_swish
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
from tests.kernels import call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]


def assert_same_hard_swish(x: Float32Array, gy: Float32Array) -> None:
    """Forward beside x and over it, and the input gradient."""
    expected = hard_swish.forward(x)
    y, g = unwritten(x.size), in_place(gy)
    call("pmeta_hard_swish_forward", x.size, x, y)
    assert_same(y, expected)
    over = in_place(x)
    call("pmeta_hard_swish_forward", x.size, over, over)
    assert_same(over, expected)
    call("pmeta_hard_swish_input_gradient", x.size, x, g)
    assert_same(g, hard_swish.input_gradient(gy, x))


@examples
@given(generators, st.integers(1, 300), flavours)
def test_any_size(rng: np.random.Generator, count: int, flavour: str) -> None:
    assert_same_hard_swish(values(rng, count, flavour=flavour), values(rng, count, flavour=flavour))


def test_bit_patterns_from_all_over() -> None:
    x = patterns(around=(0.0, 3.0))
    assert_same_hard_swish(x, x[::-1].copy())


def test_where_it_changes_course() -> None:
    x = np.array([-np.inf, -3, -0.0, 0.0, 1.5, 3, np.inf, np.nan], np.float32)
    assert_same(hard_swish.forward(x), np.array([0, 0, -0.0, 0, 1.125, 3, np.inf, np.nan], np.float32))
    gx = hard_swish.input_gradient(np.full(8, 4, np.float32), x)
    assert_same(gx, np.array([0, 0, 2, 2, 4, 4, 4, np.nan], np.float32))


@examples
@given(generators, st.integers(1, 300))
def test_pytorch(rng: np.random.Generator, count: int) -> None:
    """A sum and two products, and the rounding of 1/6; |y| ≤ |x|. Backward two products, a sum, and that of 1/3."""

    def swish(torch: Any, x: Any) -> Any:
        return torch.nn.functional.hardswish(x)

    x, gy = smooth(rng, count) * np.float32(2), smooth(rng, count)
    exact, (exact_gx,) = autograd(swish, [x], gy)
    assert_close(hard_swish.forward(x), exact, 4.1, np.abs(x).max())
    assert_close(hard_swish.input_gradient(gy, x), exact_gx, 4.1, 1.5 * np.abs(gy).max())
