"""The simulator's convolution and the product of matrices that it rests on, against scalar loops, by bytes.

Whatever the values, terms that a window skips must leave no trace; whatever the shape, neither must the way in which
sums are put together into blocks, phases of a stride and groups.
"""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Window
from pmeta.host.simulator import arithmetic
from pmeta.host.simulator.operators import conv
from pmeta.host.simulator.operators.taps import phases
from tests.differential.operators.comparison import assert_same, flavours, generators, values
from tests.reference import scalar

pytestmark = [pytest.mark.unit, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

examples = settings(max_examples=60, deadline=None)
sizes = st.integers(1, 5)
counts = st.integers(1, 3)
NOTHING = (Window((1, 1), stride=(2, 3), pad_before=(1, 2), pad_after=(1, 1)), (1, 1))  # reads padding alone
cached = st.sampled_from([1, 2, 7, 30, arithmetic.CACHED])  # numbers in a block
infinities = st.sampled_from([0.0, 0.05, 0.5])  # which part of the values
starts = st.sampled_from(["+0", "-0", "some"])


@st.composite
def windows(draw: st.DrawFn) -> tuple[Window, tuple[int, int]]:
    """(a window, an input size it fits), drawn for rows and columns apart; some pixels read nothing but padding."""
    axes, inputs = [], []
    for _ in range(2):
        kernel, stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        smallest = max(1, dilation * (kernel - 1) + 1 - before - after)
        inputs.append(smallest + draw(st.integers(0, 4)))
        axes.append((kernel, stride, dilation, before, after))
    return Window(*zip(*axes, strict=True)), (inputs[0], inputs[1])


def drawn_start(rng: np.random.Generator, kind: str, flavour: str, *shape: int) -> Float32Array:
    """What sums start at: zeros of one sign, or values."""
    if kind == "some":
        return values(rng, *shape, flavour=flavour)
    return np.full(shape, -0.0 if kind == "-0" else 0.0, np.float32)


def term_by_term(start: Float32Array, a: Float32Array, b: Float32Array, inside: npt.NDArray[np.bool_]) -> Float32Array:
    """`matrix_product`, one number at a time."""
    groups, rows, columns = a.shape[0], a.shape[1], b.shape[2]
    sums = np.empty((groups, rows, columns), np.float32)
    for g, m, n in np.ndindex(sums.shape):
        total = start[g, m]
        for t in np.flatnonzero(inside[:, n]):
            total = total + a[g, m, t] * b[g, t, n]
        sums[g, m, n] = total
    return sums


@examples
@given(generators, sizes, sizes, st.integers(0, 9), sizes, flavours, flavours, infinities, starts, cached)
def test_products_of_matrices_add_term_by_term(
    rng: np.random.Generator,
    groups: int,
    rows: int,
    terms: int,
    columns: int,
    flavour_a: str,
    flavour_b: str,
    infinite: float,
    start_kind: str,
    most: int,
) -> None:
    inside = rng.random((terms, columns)) < 0.7
    start = drawn_start(rng, start_kind, flavour_b, groups, rows)
    a = values(rng, groups, rows, terms, flavour=flavour_a)
    a[rng.random(a.shape) < infinite] = np.inf
    b = np.where(inside, values(rng, groups, terms, columns, flavour=flavour_b), np.float32(0))
    with patch.object(arithmetic, "CACHED", most):
        assert_same(arithmetic.matrix_product(start, a, b, inside), term_by_term(start, a, b, inside))


@examples
@given(st.tuples(sizes, sizes, sizes), cached)
def test_blocks_are_small_and_cover_everything(shape: tuple[int, int, int], most: int) -> None:
    count = np.zeros(shape, np.int64)
    with patch.object(arithmetic, "CACHED", most):
        for block in arithmetic._blocks(shape):
            assert count[block].size <= most
            count[block] += 1
    assert (count == 1).all()


@pytest.mark.parametrize("factor", [np.inf, -np.inf, np.nan, -1.0, 3.0])
@pytest.mark.parametrize("first", [-0.0, 0.0, 1.0])
def test_a_skipped_term_leaves_no_trace(first: float, factor: float) -> None:
    """∞·0 would be NaN, −0 + 0 would be +0."""
    start, a = np.full((1, 1), first, np.float32), np.full((1, 1, 1), factor, np.float32)
    b, inside = np.array([[[0, 2]]], np.float32), np.array([[False, True]])
    total = arithmetic.matrix_product(start, a, b, inside)[0, 0]
    assert_same(total, np.array([first, np.float32(first) + np.float32(factor) * np.float32(2)], np.float32))


@examples
@given(generators, windows() | st.just(NOTHING), counts, counts, counts, flavours, starts, cached)
def test_all_passes(
    rng: np.random.Generator,
    window_and_size: tuple[Window, tuple[int, int]],
    groups: int,
    filters: int,
    channels: int,
    flavour: str,
    start_kind: str,
    most: int,
) -> None:
    """Filters and channels are those of one group, each of which is as a convolution of its own."""
    window, size = window_and_size
    x = values(rng, groups * channels, *size, flavour=flavour)
    w = values(rng, groups * filters, channels, *window.kernel, flavour=flavour)
    b = drawn_start(rng, start_kind, flavour, groups * filters)
    gy = values(rng, groups * filters, *window.output_size(size, "conv"), flavour=flavour)
    with patch.object(arithmetic, "CACHED", most):
        y, gx = conv.forward(x, w, b, window, groups), conv.input_gradient(gy, w, window, x.shape, groups)
        d = conv._many_sums(gy, x, window, groups)
    for each in zip(*[np.split(array, groups) for array in (x, w, b, gy, y, gx, d)], strict=True):
        x1, w1, b1, gy1, y1, gx1, d1 = each
        assert_same(y1, scalar.conv_forward(x1, w1, b1, window))
        assert_same(gx1, scalar.conv_input_gradient(gy1, w1, window, (channels, *size)))
        assert_same(d1, scalar.conv_weight_gradient(gy1, x1, window))


@given(windows())
def test_phases_share_the_input_pixels_out(window_and_size: tuple[Window, tuple[int, int]]) -> None:
    """No pixel is in two of them, and each tap is in one at most."""
    window, size = window_and_size
    found = phases(window, size, window.output_size(size, "conv"))
    count = np.zeros(size, np.int64)
    for phase in found:
        count[phase.pixels] += 1
    assert count.max() <= 1
    taps = [(tap.row, tap.column) for phase in found for tap in phase.taps]
    assert len(taps) == len(set(taps))
