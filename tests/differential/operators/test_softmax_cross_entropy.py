"""Softmax cross-entropy: C kernel ≡ simulator by bytes; simulator ≈ PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.host.simulator.operators.softmax_cross_entropy import loss_and_gradient
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
def test_kernel(rng: np.random.Generator, ways: int, flavour: str) -> None:
    logits, label = values(rng, ways, flavour=flavour), int(rng.integers(ways))
    g = unwritten(ways)
    loss = call("pmeta_softmax_cross_entropy", ways, logits, label, g)
    expected_loss, expected_g = loss_and_gradient(logits, label)
    assert_same(np.float32([loss]), np.float32([expected_loss]))
    assert_same(g, expected_g)


@examples
@given(generators, st.integers(1, 40), st.sampled_from([1.0, 8.0]))
def test_pytorch(rng: np.random.Generator, ways: int, scale: float) -> None:
    def cross_entropy(torch: Any, logits: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits, torch.tensor(label))

    logits, label = np.float32(scale) * smooth(rng, ways), int(rng.integers(ways))
    loss, g = loss_and_gradient(logits, label)
    exact, (exact_g,) = autograd(cross_entropy, [logits])
    # The rounding of o − m moves exp by spread·2⁻²⁴ of itself; exp and log are good to about one ulp, two roundings
    # each; the lane sum has ways/8 + 3 additions; four other operations.
    spread = float(np.ptp(logits))
    roundings = spread + ways / 8 + 11
    assert_close(g, exact_g, roundings, 1.0)
    assert_close(np.asarray(loss), exact, roundings, max(1.0, float(exact)))
