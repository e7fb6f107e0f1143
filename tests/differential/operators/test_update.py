"""Accumulators and updates: C kernels ≡ simulator by bytes; simulator ≈ float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.adaptation import Adaptation, InputEncoding, Model
from pmeta.codegen.graph import Float32Array, Graph, frozen_float32
from pmeta.codegen.operators import Conv, Flatten, Gemm, Window
from pmeta.host.simulator.channel_rates import scaled_by_channel
from pmeta.host.simulator.simulator import Simulator
from tests.differential.operators.comparison import (
    assert_close,
    assert_same,
    examples,
    flavours,
    generators,
    smooth,
    values,
)
from tests.kernels import call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

step_sizes = st.floats(2.0**-10, 1.0, width=32)
sample_counts = st.integers(1, 40)


def adapted(w: Float32Array, samples: Float32Array, step_size: float) -> tuple[Float32Array, Float32Array]:
    """(the accumulator G, the updated weight) of one step in the simulator: w (ways, C), samples (N, C)."""
    ways, channels = w.shape
    graph = Graph("one-layer", "x", (channels,), (Gemm("fc", "x", "y", "w", None, ways),), {"w": frozen_float32(w)})
    alpha = frozen_float32([[step_size]])
    model = Model(graph, Adaptation("test", ways, 1, alpha, (("weight",),), 0, 0, InputEncoding("float32")))
    simulator = Simulator(model)
    total = np.zeros_like(w)
    for index, sample in enumerate(samples):
        total = simulator.trace_sample(sample, index % ways).contributions["w"].added_to(total)
        simulator.adapt_sample(sample, index % ways)
    simulator.end_step(len(samples))
    return total, simulator.weights["w"]


@examples
@given(generators, st.integers(1, 200), flavours)
def test_clear(rng: np.random.Generator, count: int, flavour: str) -> None:
    grad = in_place(values(rng, count, flavour=flavour))
    call("pmeta_clear", count, grad)
    assert_same(grad, np.zeros(count, np.float32))


@examples
@given(generators, st.integers(2, 5), st.integers(1, 20), sample_counts, step_sizes, flavours, st.integers(0, 2))
def test_update(
    rng: np.random.Generator, ways: int, channels: int, samples: int, step_size: float, flavour: str, target: int
) -> None:
    """Into memory of its own, over the weight, or over the accumulator."""
    w = values(rng, ways, channels, flavour=flavour)
    total, expected = adapted(w, values(rng, samples, channels, flavour=flavour), step_size)
    weight, grad = in_place(w), in_place(total)
    updated = (unwritten(ways, channels), weight, grad)[target]
    call("pmeta_update", w.size, weight, grad, step_size, samples, updated)
    assert_same(updated, expected)


@examples
@given(
    generators, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 4, 9]), flavours,
    st.sampled_from(["both", "out", "in"]),
)  # fmt: skip
def test_scale_channels(
    rng: np.random.Generator, groups: int, group_rows: int, columns: int, taps: int, flavour: str, sides: str
) -> None:
    """The gradient of a convolution with groups, by the simulator's rule; of a GroupNorm: one row to a group."""
    side = {1: 1, 4: 2, 9: 3}[taps]
    rows = groups * group_rows
    node = Conv("conv", "x", "y", "w", None, rows, Window((side, side)), groups)
    weight = values(rng, rows, columns, side, side, flavour=flavour)
    graph = Graph("one-layer", "x", (groups * columns, side, side), (node, Flatten("flat", "y", "z")), {"w": weight})
    tables = {
        "alpha_out": {} if sides == "in" else {"conv": frozen_float32(rng.uniform(0, 2, rows))},
        "alpha_in": {} if sides == "out" else {"conv": frozen_float32(rng.uniform(0, 2, groups * columns))},
    }
    model = Model(graph, Adaptation(
        "test", rows, 1, frozen_float32([[0.1]]), (("weight",),), 0, 0, InputEncoding("float32"), **tables,
    ))  # fmt: skip
    grad = in_place(values(rng, rows, columns, side, side, flavour=flavour))
    expected = scaled_by_channel(model, model.learned_weights[0], grad.array.copy())
    call("pmeta_scale_channels", rows, columns, taps, group_rows, *(
        tables[name].get("conv") for name in ("alpha_out", "alpha_in")
    ), grad)  # fmt: skip
    assert_same(grad, expected)


@examples
@given(generators, sample_counts, step_sizes)
def test_float64(rng: np.random.Generator, samples: int, step_size: float) -> None:
    w = smooth(rng, 4, 9)
    total, updated = adapted(w, smooth(rng, samples, 9), step_size)
    change = step_size / samples * total.astype(np.float64)
    assert_close(updated, w - change, 3, float(np.abs(w).max() + np.abs(change).max()))  # quotient, product, difference
