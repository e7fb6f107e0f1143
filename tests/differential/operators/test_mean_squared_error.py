"""Mean squared error: C kernel ≡ simulator by bytes; simulator ≈ PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.host.simulator.operators.mean_squared_error import loss_and_gradient
from tests.differential.operators.comparison import (
    assert_close,
    assert_same,
    autograd,
    examples,
    flavours,
    generators,
    smooth,
    values,
)
from tests.kernels import call, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]


@examples
@given(generators, st.integers(1, 40), flavours)
def test_kernel(rng: np.random.Generator, count: int, flavour: str) -> None:
    outputs, target = values(rng, count, flavour=flavour), values(rng, count, flavour=flavour)
    g = unwritten(count)
    loss = call("pmeta_mean_squared_error", count, outputs, target, g)
    expected_loss, expected_g = loss_and_gradient(outputs, target)
    assert_same(np.float32([loss]), np.float32([expected_loss]))
    assert_same(g, expected_g)


@examples
@given(generators, st.integers(1, 40))
def test_pytorch(rng: np.random.Generator, count: int) -> None:
    """torch.nn.functional.mse_loss of one sample: the mean over its outputs."""

    def squared_error(torch: Any, outputs: Any) -> Any:
        return torch.nn.functional.mse_loss(outputs, torch.tensor(target, dtype=torch.float64))

    outputs, target = smooth(rng, count), smooth(rng, count)
    loss, g = loss_and_gradient(outputs, target)
    exact, (exact_g,) = autograd(squared_error, [outputs])
    # d has one rounding, 2·d none, the division one. The loss: d·d three, the lane sum count/8 + 3, the division one.
    assert_close(g, exact_g, 3, float(np.abs(exact_g).max()))
    assert_close(np.asarray(loss), exact, count / 8 + 8, float(exact))
