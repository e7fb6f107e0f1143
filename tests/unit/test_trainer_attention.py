"""Algorithm 1 and its straight-through gradient."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from pmeta.trainer.attention import (  # noqa: E402
    channel_weights,
    clip_and_normalize,
    initial_module,
    least_clipped,
)

pytestmark = pytest.mark.unit

scores = st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40)
ratios = st.integers(0, 999)


@given(scores, ratios)
def test_clipping_bounds_whatever_the_input(values: list[float], rho: int) -> None:
    """Between ⌈ρC⌉ and C−1 zeros, the rest sums to C and keeps its proportions."""
    pi = torch.softmax(torch.tensor(values, dtype=torch.float64), 0)
    gamma = clip_and_normalize(pi, rho)
    channels, kept = len(values), gamma > 0
    assert gamma.sum().item() == pytest.approx(channels)
    assert kept.sum() >= 1
    if rho == 0 or channels == 1:
        torch.testing.assert_close(gamma, pi * channels)
        return
    clipped = channels - int(kept.sum())
    assert least_clipped(channels, rho) == min(-(-rho * channels // 1000), channels - 1)
    assert clipped >= least_clipped(channels, rho)
    assert pi[~kept].max() <= pi[kept].min()
    torch.testing.assert_close(gamma[kept] / gamma[kept].sum(), pi[kept] / pi[kept].sum())


@given(scores, st.integers(1, 999))
def test_the_smallest_count_that_reaches_rho(values: list[float], rho: int) -> None:
    pi = torch.softmax(torch.tensor(values, dtype=torch.float64), 0)
    clipped = int((clip_and_normalize(pi, rho) == 0).sum()) if len(values) > 1 else 0
    ascending = sorted(pi.tolist())
    if least_clipped(len(values), rho) < clipped:
        assert sum(ascending[: clipped - 1]) < rho / 1000 + 1e-12


def test_equal_entries_go_in_order_of_their_index() -> None:
    gamma = clip_and_normalize(torch.full((10,), 0.1), 300)
    assert gamma[:3].tolist() == [0.0] * 3
    torch.testing.assert_close(gamma[3:], torch.full((7,), 10 / 7))


def test_one_dominant_channel_survives() -> None:
    """As printed, the algorithm would clip all channels here and divide by zero."""
    gamma = clip_and_normalize(torch.tensor([0.05, 0.9, 0.05]), 300)
    assert gamma.tolist() == [0.0, 3.0, 0.0]


def test_fresh_attention_is_neutral_without_clipping() -> None:
    import numpy as np

    module = initial_module(6, np.random.default_rng(0))
    gamma = channel_weights(module, torch.randn(4, 6, 5, 5), micro_batch=2, rho=0)
    assert torch.equal(gamma, torch.ones(4, 6))


def test_straight_through_gradient_is_that_of_the_softmax() -> None:
    """dγ/dπ = C·identity, also for clipped channels; the value is Algorithm 1's to the bit."""
    import numpy as np

    module = initial_module(5, np.random.default_rng(0))
    module["w2"] = torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    x = torch.rand(3, 5)
    bias = module["b2"].clone().requires_grad_()
    direction = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0])

    gamma = channel_weights(module | {"b2": bias}, x, micro_batch=3, rho=400)
    hidden = torch.relu(x @ module["w1"].T + module["b1"])
    pi = torch.softmax((hidden @ module["w2"].T + bias).mean(0), 0)
    assert torch.equal(gamma, clip_and_normalize(pi.detach(), 400).expand(3, 5))
    (mine,) = torch.autograd.grad((gamma[0] * direction).sum(), bias)
    (expected,) = torch.autograd.grad((5 * pi * direction).sum(), bias)
    torch.testing.assert_close(mine, expected)
