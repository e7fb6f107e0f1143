"""Meta attention: C kernels ≡ simulator by bytes; never more kept channels than there is room for; ≈ PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pmeta.codegen.adaptation import AttentionModule
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators.weight_gradient import kept_channels_bound
from pmeta.codegen.storage import MapType, StoredType
from pmeta.host.simulator.attention import attention, module_output
from tests.differential.operators.comparison import (
    ORDINARY,
    ROW_TYPES,
    as_stored,
    assert_close,
    assert_same,
    autograd,
    examples,
    flavours,
    gamma,
    generators,
    kept_rows,
    smooth,
    stored_rows,
    stored_types,
    values,
)
from tests.kernels import Struct, call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

channel_counts = st.sampled_from([1, 2, 3, 5, 8, 17, 40])
maps: st.SearchStrategy[MapType] = st.sampled_from(["float32", "float16"])
rhos = st.one_of(st.sampled_from([0, 1, 300, 500, 999]), st.integers(0, 999))
shapes = st.sampled_from([(), (1, 1), (3, 5), (7, 8)])


def random_module(rng: np.random.Generator, channels: int, spread: float, flavour: str) -> AttentionModule:
    """The smaller the spread, the closer the probabilities."""
    w1, w2 = (np.float32(spread / channels) * smooth(rng, channels, channels) for _ in range(2))
    b1, b2 = values(rng, channels, flavour=flavour), smooth(rng, channels)
    return AttentionModule(w1, np.float32(spread) * b1, w2, b2)


def constant_module(scores: Float32Array) -> AttentionModule:
    """Whose output does not depend on the sample."""
    nothing = np.zeros((scores.size, scores.size), np.float32)
    return AttentionModule(nothing, np.zeros_like(scores), nothing, scores)


def run_kernel(module: AttentionModule, batch: Sequence[Float32Array], rho: int) -> Float32Array:
    channels = module.channels
    fields, means = {"channels": channels, "rho": rho}, unwritten(channels)
    parts = {"w1": module.w1, "b1": module.b1, "w2": module.w2, "b2": module.b2}
    result = unwritten(channels)
    total, hidden, order = unwritten(channels), unwritten(2, channels), unwritten(channels, dtype=np.uint16)
    struct = Struct("pmeta_attention_module", {**fields, **parts})
    for n, v in enumerate(batch):
        call("pmeta_channel_means", channels, v.size // channels, ROW_TYPES["float32"], v, None, means)
        call("pmeta_attention_output", struct, int(n == 0), means.array, hidden, total)
    call("pmeta_attention_scores", struct, len(batch), total.array, order, result)
    return result.array


def assert_room_for_kept(scores: Float32Array, rho: int) -> None:
    """The list of kept channels fits the memory that the plan reserves for it."""
    bound = kept_channels_bound(scores.size, rho)
    kept = unwritten(1 + bound, dtype=np.uint16)
    call("pmeta_kept_channels", scores.size, scores, kept)
    expected = np.flatnonzero(scores)
    assert kept.array[0] == expected.size <= bound
    assert kept.array[1 : 1 + expected.size].tolist() == expected.tolist()


@examples
@given(generators, channel_counts, shapes, rhos, st.sampled_from([1e-3, 0.1, 1.0]), flavours, st.integers(1, 4))
def test_module(
    rng: np.random.Generator,
    channels: int,
    size: tuple[int, ...],
    rho: int,
    spread: float,
    flavour: str,
    count: int,
) -> None:
    module = random_module(rng, channels, spread, flavour)
    v = [values(rng, channels, *size, flavour=flavour) for _ in range(count)]
    scores = run_kernel(module, v, rho)
    assert_same(scores, attention(module, v, rho))
    assert_room_for_kept(scores, rho)


@examples
@given(generators, channel_counts, rhos, st.integers(1, 4))
def test_ties(rng: np.random.Generator, channels: int, rho: int, distinct: int) -> None:
    """Few different scores, some so small that their probability is +0."""
    choices = np.array([0, -200, 1, 0.5], np.float32)[:distinct]
    module, v = constant_module(rng.choice(choices, channels)), [values(rng, channels)]
    scores = run_kernel(module, v, rho)
    assert_same(scores, attention(module, v, rho))
    assert_room_for_kept(scores, rho)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 3, 7])
@pytest.mark.parametrize("rho", [0, 1, 300, 999])
def test_not_finite(bad: float, where: int, rho: int) -> None:
    """One such score makes all of them NaN; still no more channels are kept than there is room for."""
    scores = np.linspace(-1, 1, 8, dtype=np.float32)
    scores[where] = bad
    module, v = constant_module(scores), [np.ones(8, np.float32)]
    result = run_kernel(module, v, rho)
    assert_same(result, attention(module, v, rho))
    assert_room_for_kept(result, rho)


def test_most_channels_are_kept_when_all_are_equal() -> None:
    """So the bound is reached, and one less would overflow."""
    for channels in (2, 5, 8, 40):
        for rho in (1, 300, 500, 999):
            scores = run_kernel(constant_module(np.zeros(channels, np.float32)), [np.ones(channels, np.float32)], rho)
            assert np.count_nonzero(scores) == kept_channels_bound(channels, rho)


@examples
@given(generators, channel_counts, st.sampled_from([1, 15, 56]), maps, st.booleans(), stored_types, flavours)
def test_keep_rows(
    rng: np.random.Generator, channels: int, size: int, map_as: MapType, weigh: bool, kept_as: StoredType, flavour: str
) -> None:
    x, scores = as_stored(map_as, values(rng, channels, size, flavour=flavour)), gamma(rng, channels)
    assume(scores is not None)
    kept, rows = kept_rows(x, scores, weigh)
    expected = stored_rows(rows, kept_as)
    store, row = in_place(np.zeros_like(expected)), unwritten(size)
    given = (kept, ROW_TYPES[map_as], stored_rows(x, map_as), scores if weigh else None)
    call("pmeta_keep_rows", size, *given, row, ROW_TYPES[kept_as], store)
    assert_same(decoded(store.array, rows.shape, kept_as), decoded(expected, rows.shape, kept_as))


@examples
@given(generators, channel_counts, maps, st.booleans(), stored_types, flavours)
def test_keep_elements(
    rng: np.random.Generator, channels: int, map_as: MapType, weigh: bool, kept_as: StoredType, flavour: str
) -> None:
    """What is kept of a vector becomes one row."""
    x, scores = as_stored(map_as, values(rng, channels, flavour=flavour)), gamma(rng, channels)
    assume(scores is not None and scores.any())
    kept, elements = kept_rows(x, scores, weigh)
    expected = stored_rows(elements[None], kept_as)
    store, row = in_place(np.zeros_like(expected)), unwritten(elements.size)
    given = (kept, ROW_TYPES[map_as], stored_rows(x[None], map_as), scores if weigh else None)
    call("pmeta_keep_elements", *given, row, ROW_TYPES[kept_as], store)
    shape = (1, elements.size)
    assert_same(decoded(store.array, shape, kept_as), decoded(expected, shape, kept_as))


def decoded(rows: Any, shape: tuple[int, ...], kept_as: StoredType) -> Float32Array:
    """NaN may differ in its bits; as float32 it does not."""
    x = unwritten(*shape)
    if kept_as == "float32":
        return rows
    call("pmeta_decode_rows", ROW_TYPES[kept_as], *shape, rows, x)
    return x.array


@examples
@given(generators, channel_counts, shapes, st.sampled_from([0, 1, 300, 500, 999]))
def test_pytorch(rng: np.random.Generator, channels: int, size: tuple[int, ...], rho: int) -> None:
    module, v = random_module(rng, channels, 0.1, ORDINARY), smooth(rng, channels, *size)
    scores = attention(module, [v], rho)
    parts = [module.w1, module.b1, module.w2, module.b2]

    def output(_: Any, v: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        average = v.reshape(channels, -1).mean(1)
        return w2 @ (w1 @ average + b1).relu() + b2

    exact, _ = autograd(output, [v, *parts])
    magnitudes, _ = autograd(output, [np.abs(array) for array in [v, *parts]])
    # The average, two sums of `channels` products with a bias, all of them one after the other.
    roundings = v[0].size / 8 + 4 + 2 * (channels + 1)
    assert_close(module_output(module, v), exact, roundings, magnitudes.max())

    # From here on compare given these scores: softmax and Algorithm 1 in float64.
    exponentials = np.exp(module_output(module, v).astype(np.float64))
    pi = exponentials / exponentials.sum()
    expected, distance = algorithm_1(pi, rho)
    assume(distance > 1e-5)  # else rounding may decide which channel is the last one clipped
    assert np.array_equal(scores != 0, expected != 0)
    spread = float(np.ptp(module_output(module, v)))
    assert_close(scores, expected, spread + 2 * (channels / 8 + 3) + 11, float(expected.max()))


def algorithm_1(pi: np.ndarray, rho: int) -> tuple[np.ndarray, float]:
    """(γ in float64, by how much π must move to choose other channels)."""
    channels = pi.size
    if rho == 0 or channels == 1:
        return pi * channels, np.inf
    order = np.argsort(pi, kind="stable")
    sums = np.cumsum(pi[order])
    reaches = int((sums < rho / 1000).sum()) + 1
    count = min(max(reaches, -(-rho * channels // 1000)), channels - 1)
    clipped = pi.copy()
    clipped[order[:count]] = 0
    distance = min(np.abs(sums - rho / 1000).min(), pi[order[count]] - pi[order[count - 1]])
    return clipped / clipped.sum() * channels, float(distance)
