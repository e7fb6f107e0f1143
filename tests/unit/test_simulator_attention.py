"""The attention module and Algorithm 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.adaptation import AttentionModule
from pmeta.codegen.graph import Float32Array
from pmeta.host.simulator.arithmetic import canonical_bytes, exp32
from pmeta.host.simulator.attention import attention, clip, clipped_count
from tests.reference import scalar

pytestmark = pytest.mark.unit

finite = st.floats(-100, 100, width=32)
rhos = st.one_of(st.sampled_from([0, 1, 300, 500, 999]), st.integers(0, 999))


def softmax_of(scores: list[float]) -> Float32Array:
    exponentials = exp32(np.array(scores, np.float32) - np.float32(max(scores)))
    return exponentials / scalar.lane_sum(exponentials)


@given(st.lists(finite, min_size=1, max_size=40), rhos)
def test_clip_is_algorithm_1(scores: list[float], rho: int) -> None:
    pi = softmax_of(scores)
    assert canonical_bytes(clip(pi, rho)) == canonical_bytes(scalar.algorithm_1(pi, rho))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:overflow:RuntimeWarning")
@given(st.lists(st.floats(0, width=32), min_size=1, max_size=12), rhos)
def test_clip_is_algorithm_1_for_anything(values: list[float], rho: int) -> None:
    pi = np.array(values, np.float32)  # NaN and infinity included
    assert canonical_bytes(clip(pi, rho)) == canonical_bytes(scalar.algorithm_1(pi, rho))


@given(st.lists(finite, min_size=2, max_size=40), rhos)
def test_the_sparse_store_cannot_overflow(scores: list[float], rho: int) -> None:
    channels = len(scores)
    kept = np.count_nonzero(clip(softmax_of(scores), rho))
    room = channels if rho == 0 else max(1, channels - (rho * channels + 999) // 1000)
    assert 0 < kept <= room


@given(st.lists(finite, min_size=1, max_size=40))
def test_without_a_clip_ratio_gamma_is_the_scaled_softmax(scores: list[float]) -> None:
    pi = softmax_of(scores)
    assert clipped_count(np.sort(pi), 0) == 0
    np.testing.assert_allclose(clip(pi, 0), pi * len(pi), rtol=1e-5)


@given(st.lists(finite, min_size=1, max_size=40), rhos)
def test_gamma_has_mean_one(scores: list[float], rho: int) -> None:
    np.testing.assert_allclose(clip(softmax_of(scores), rho).mean(), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("pi", "rho", "kept"),
    [
        ([0.25, 0.25, 0.25, 0.25], 500, [2, 3]),  # ties: lower indices are clipped first
        ([0.4, 0.1, 0.4, 0.1], 200, [0, 2]),
        ([0.9, 0.1], 300, [0]),  # as printed, the algorithm would clip both and divide by zero
        ([0.5, 0.5], 999, [1]),  # ⌈ρC⌉ = C: one channel is kept
        ([1.0], 900, [0]),
        ([0.0, 0.0, 1.0], 1, [2]),
    ],
)
def test_which_channels_are_kept(pi: list[float], rho: int, kept: list[int]) -> None:
    assert np.flatnonzero(clip(np.array(pi, np.float32), rho)).tolist() == kept


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_counts_as_the_largest() -> None:
    gamma = clip(np.array([0.2, np.nan, 0.1, np.nan], np.float32), 500)
    assert gamma[[0, 1, 2]].tolist() == [0, 0, 0] and np.isnan(gamma[3])


@pytest.mark.parametrize("shape", [(5, 3, 4), (5,), (1, 2, 2)])
def test_module_against_scalar_loops(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    channels = shape[0]
    w1, w2 = rng.normal(size=(2, channels, channels)).astype(np.float32)
    b1, b2 = rng.normal(size=(2, channels)).astype(np.float32)
    values = rng.normal(size=shape).astype(np.float32)
    rows = values.reshape(channels, -1)
    average = np.array([scalar.lane_sum(row) / np.float32(len(row)) for row in rows])
    hidden = scalar.gemm_forward(average, w1, b1)
    hidden = np.array([h if h > 0 else np.float32(0) for h in hidden])
    scores = scalar.gemm_forward(hidden, w2, b2)
    expected = scalar.algorithm_1(softmax_of(scores.tolist()), 300)
    gamma = attention(AttentionModule(w1, b1, w2, b2), [values], 300)
    assert canonical_bytes(gamma) == canonical_bytes(expected)
