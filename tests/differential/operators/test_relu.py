"""Relu: C kernels ≡ simulator by bytes, with the mask as it is packed; simulator ≡ PyTorch, whose ReLU is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.host.simulator.operators import relu
from tests.differential.operators.comparison import (
    ORDINARY,
    assert_same,
    autograd,
    examples,
    flavours,
    generators,
    smooth,
    unpacked,
    values,
)
from tests.kernels import call, in_place, unwritten

pytestmark = pytest.mark.differential


@pytest.mark.parametrize("count", [1, 31, 32, 33, 63, 64, 65])
@pytest.mark.parametrize("flavour", [ORDINARY, "tiny", "special"])
def test_masks_around_a_word(count: int, flavour: str) -> None:
    assert_same_relu(np.random.default_rng(count), count, flavour)


@examples
@given(generators, st.integers(1, 300), flavours)
def test_any_size(rng: np.random.Generator, count: int, flavour: str) -> None:
    assert_same_relu(rng, count, flavour)


def assert_same_relu(rng: np.random.Generator, count: int, flavour: str) -> None:
    """Forward with and without mask, the mask itself, and the input gradient."""
    x, gy = values(rng, count, flavour=flavour), values(rng, count, flavour=flavour)
    expected, zero = relu.forward(x)
    y, alone, mask, g = in_place(x), in_place(x), unwritten(-(-count // 32), dtype=np.uint32), in_place(gy)
    call("pmeta_relu_forward", count, y, mask)
    assert_same(y, expected)
    assert np.array_equal(unpacked(mask.array, count), ~zero)  # set where it passes
    call("pmeta_relu_forward", count, alone, None)
    assert_same(alone, expected)
    call("pmeta_relu_input_gradient", count, mask.array, g)
    assert_same(g, relu.input_gradient(gy, zero))


@examples
@given(generators, st.integers(1, 300))
def test_pytorch(rng: np.random.Generator, count: int) -> None:
    def rectified(torch: Any, x: Any) -> Any:
        return torch.nn.functional.relu(x)

    x, gy = smooth(rng, count), smooth(rng, count)
    y, zero = relu.forward(x)
    exact, (exact_gx,) = autograd(rectified, [x], gy)
    assert np.array_equal(y, exact)
    assert np.array_equal(relu.input_gradient(gy, zero), exact_gx)
