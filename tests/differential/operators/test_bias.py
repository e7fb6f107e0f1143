"""Gradients of biases and shifts: C kernel ≡ simulator by bytes; simulator ≈ PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.host.simulator.operators.operator import Gamma, bias_contribution
from tests.differential.operators.comparison import (
    accumulator,
    assert_accumulates,
    assert_close,
    autograd,
    channel_counts,
    examples,
    flavours,
    gamma,
    generators,
    smooth,
    values,
)
from tests.kernels import call, in_place

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]


@examples
@given(generators, channel_counts, st.integers(1, 200), flavours)
def test_kernel(rng: np.random.Generator, channels: int, size: int, flavour: str) -> None:
    g, bw = values(rng, channels, size, flavour=flavour), gamma(rng, channels)
    start = accumulator(rng, channels, flavour=flavour)
    grad = in_place(start)
    call("pmeta_bias_gradient", channels, size, g, bw, grad)
    assert_accumulates(grad, start, bias_contribution(g, Gamma(gamma(rng, channels), bw)))  # γ^fw plays no part


@examples
@given(generators, channel_counts, st.integers(1, 200))
def test_pytorch(rng: np.random.Generator, channels: int, size: int) -> None:
    def biased(_: Any, x: Any, b: Any) -> Any:
        return x + b[:, None]

    g = smooth(rng, channels, size)
    _, (_, exact) = autograd(biased, [smooth(rng, channels, size), smooth(rng, channels)], g)
    contribution = bias_contribution(g, Gamma(None, None))
    assert contribution.factor is None
    assert_close(contribution.d, exact, size - 1, np.abs(g).sum(1).max())
