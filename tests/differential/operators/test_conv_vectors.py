"""Conv by vectors: on purpose where they begin, end, repeat pixels or lanes, and where they must not be used.

Which way a layer goes its kernel's header says; bits are the simulator's. Beside the processor's own vectors these are
the ones that all of its kind have.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.boards import COMPILE_FLAGS
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Conv, Window
from pmeta.codegen.plan.program import ShapeConstants
from pmeta.host.simulator.operators import conv
from pmeta.host.simulator.operators.operator import Gamma
from tests.differential.operators.comparison import ORDINARY, accumulator, assert_accumulates, assert_same, values
from tests.kernel_memory import assert_stays_inside
from tests.kernels import SCALAR, VECTORS, answer, call, in_place, unwritten
from tests.sanitized import VECTOR_VARIANTS, Flags

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

Size = tuple[int, int]

HEADER = "pmeta_conv.h"
VARIANTS = (VECTORS, COMPILE_FLAGS, SCALAR)  # COMPILE_FLAGS: vectors of four


@functools.cache
def lanes() -> int:
    """Of this computer's vectors."""
    return answer(HEADER, layer(1, Window((1, 1))).shape_constants((1, 1, 1)), "PMETA_VECTOR")


@pytest.fixture(autouse=True)
def _vectors() -> None:
    if lanes() == 1:
        pytest.skip("this computer has no vectors that pmeta_vector.h knows")


def layer(filters: int, window: Window, groups: int = 1) -> Conv:
    return Conv("conv", "x", "y", "weight", "bias", filters, window, groups)


def says(question: str, constants: ShapeConstants) -> bool:
    return bool(answer(HEADER, constants, f"{question}(&shape)"))


def same(kernel: int = 3, dilation: int = 1) -> Window:
    """As large an output as the input."""
    pad = dilation * (kernel - 1) // 2
    return Window(*((each, each) for each in (kernel, 1, dilation, pad, pad)))


# What makes a layer a case of its own, for vectors of eight:
BY_PIXELS = {
    "many rows, a whole number of blocks": (3, 4, (28, 28), same()),
    "a vector and a half are left, filters by 3 and 2": (3, 5, (14, 14), same()),
    "one pixel is left": (2, 4, (7, 7), same()),
    "two vectors that overlap by seven": (17, 4, (3, 3), same()),
    "exactly one vector": (2, 1, (2, 4), same()),
    "vectors of three rows": (3, 4, (9, 3), same()),
    "of eight rows": (2, 4, (24, 1), same()),
    "wide": (1, 4, (3, 84), same()),
    "of a photograph": (2, 3, (6, 42), same()),
    "odd width": (2, 4, (5, 21), same()),
    "of a fourth layer": (2, 4, (10, 10), same()),
    "of a fifth layer": (9, 4, (5, 5), same()),
    "nothing outside": (3, 4, (6, 7), same(1)),
    "a map's neighbours are further than the tensor's end": (2, 4, (3, 3), same(7)),
    "dilated": (2, 4, (9, 11), same(3, 2)),
    "large kernel": (2, 4, (12, 10), same(5)),
    "more rows out than in": (2, 4, (5, 8), Window((3, 3), pad_before=(3, 1), pad_after=(2, 1))),
    "less rows out than in": (2, 4, (8, 6), Window((3, 3), pad_before=(0, 1), pad_after=(0, 1))),
    "all columns before": (2, 4, (6, 9), Window((2, 3), pad_before=(1, 2), pad_after=(0, 0))),
    "all columns behind, rows only below": (2, 4, (6, 9), Window((1, 3), pad_before=(0, 0), pad_after=(2, 2))),
    "one row": (3, 4, (1, 50), Window((1, 5), pad_before=(0, 2), pad_after=(0, 2))),
}


@pytest.mark.parametrize("case", BY_PIXELS)
def test_by_pixels(case: str) -> None:
    """Forward with and without bias, and the gradient of the input."""
    assert_same_by_pixels(*BY_PIXELS[case], groups=1)


@pytest.mark.parametrize("case", ["one pixel is left", "a map's neighbours are further than the tensor's end"])
def test_groups_by_pixels(case: str) -> None:
    assert_same_by_pixels(*BY_PIXELS[case], groups=2)


def assert_same_by_pixels(channels: int, filters: int, size: Size, window: Window, groups: int) -> None:
    node, shape = layer(groups * filters, window, groups), (groups * channels, *size)
    constants = node.shape_constants(shape)
    assert says("pmeta_conv_has_pixels", constants)
    rng = np.random.default_rng(channels)
    w, bias = values(rng, groups * filters, channels, *window.kernel), values(rng, groups * filters)
    for flavour in (ORDINARY, "special"):
        x, gy = values(rng, *shape, flavour=flavour), values(rng, *node.output_shape(shape), flavour=flavour)
        for b in (bias, None):
            y = unwritten(*gy.shape)
            call("pmeta_conv_forward", constants, x, w, b, y, variants=VARIANTS)
            assert_same(y, conv.forward(x, w, b, window, groups))
        gx = unwritten(*shape)
        call("pmeta_conv_input_gradient", constants, 1, w, gy, gx, variants=VARIANTS)
        assert_same(gx, conv.input_gradient(gy, w, window, shape, groups))


@pytest.mark.parametrize("size", [(3, 3), (7, 7), (10, 10), (4, 8)])
def test_sums_that_continue(size: Size) -> None:
    """Filter by filter, also where vectors repeat pixels: a second sum must not be added twice."""
    constants = layer(1, same()).shape_constants((3, *size))
    assert says("pmeta_conv_has_pixels", constants)
    rng, gx = np.random.default_rng(size[0]), unwritten(3, *size)
    w, gy = values(rng, 4, 3, 3, 3), values(rng, 4, *size)
    for f in range(4):
        call("pmeta_conv_input_gradient", constants, int(f == 0), w[f], gy[f], gx, variants=VARIANTS)
    assert_same(gx, conv.input_gradient(gy, w, same(), (3, *size)))


@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((9, 9), Window((3, 3), stride=(1, 2), pad_before=(1, 1), pad_after=(1, 1))),
        ((9, 9), Window((3, 3))),
        ((1, 3), same()),
        ((12, 12), same(9)),
        ((8, 300), same()),
    ],
    ids=["stride", "other width", "too few pixels", "too large a kernel", "too wide"],
)
def test_not_by_pixels(size: Size, window: Window) -> None:
    constants = layer(4, window).shape_constants((3, *size))
    assert not says("pmeta_conv_has_pixels", constants)


WEIGHTS = 5 * 3 * 3 * 3  # of the next test: vectors of eight, and seven more


# A pixel of padding is outside, one tap alone is not; and rows that only the output has are.
OUTSIDE = [same(), Window((1, 1), pad_after=(2, 0))]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("place", [0, 7, 63, WEIGHTS - 8, WEIGHTS - 7, WEIGHTS - 1])
def test_weights_that_are_not_finite(value: float, place: int) -> None:
    """A tap that skips the outside is not one that multiplies it with zero."""
    node, shape, rng = layer(5, same()), (3, 6, 6), np.random.default_rng(place)
    w, bias, x = values(rng, 5, 3, 3, 3), values(rng, 5), values(rng, *shape)
    assert may_read_zeros(node, shape, w, bias)
    w.reshape(-1)[place] = value
    assert not may_read_zeros(node, shape, w, bias)
    assert_same_passes(node, x, w, bias)


@pytest.mark.parametrize("window", OUTSIDE)
def test_no_finite_weight_at_all(window: Window) -> None:
    node, shape = layer(5, window), (3, 6, 6)
    w, bias = np.full((5, 3, *window.kernel), np.inf, np.float32), np.ones(5, np.float32)
    assert says("pmeta_conv_has_pixels", node.shape_constants(shape))
    assert_same_passes(node, np.ones(shape, np.float32), w, bias)


@pytest.mark.parametrize("window", [*OUTSIDE, Window((1, 1))])
@pytest.mark.parametrize("filter_", [0, 4])
def test_a_bias_of_minus_zero(window: Window, filter_: int) -> None:
    """It stays, where all taps inside add -0."""
    node, shape = layer(5, window), (3, 6, 6)
    w, bias, x = np.ones((5, 3, *window.kernel), np.float32), np.ones(5, np.float32), np.full(shape, -0.0, np.float32)
    bias[filter_] = 0.0
    assert may_read_zeros(node, shape, w, bias)
    bias[filter_] = -0.0
    assert not may_read_zeros(node, shape, w, bias)
    assert_same_passes(node, x, w, bias)
    y = conv.forward(x, w, bias, node.window)
    assert np.signbit(y[filter_]).all()


def may_read_zeros(node: Conv, shape: tuple[int, int, int], w: Float32Array, bias: Float32Array) -> bool:
    question = f"pmeta_conv_may_read_zeros({w.size}, a, {bias.size}, b)"
    return bool(answer(HEADER, node.shape_constants(shape), question, w, bias))


def assert_same_passes(node: Conv, x: Float32Array, w: Float32Array, bias: Float32Array) -> None:
    constants, expected = node.shape_constants(x.shape), conv.forward(x, w, bias, node.window)
    y, gx = unwritten(*expected.shape), unwritten(*x.shape)
    call("pmeta_conv_forward", constants, x, w, bias, y, variants=VARIANTS)
    assert_same(y, expected)
    gy = values(np.random.default_rng(1), *expected.shape)
    call("pmeta_conv_input_gradient", constants, 1, w, gy, gx, variants=VARIANTS)
    assert_same(gx, conv.input_gradient(gy, w, node.window, x.shape))


# Channels, filters, input size, window: 64 outputs at a time are laid side by side, for sums of at most eight channels.
BY_FILTERS = {
    "several rows at a time, the last ones fewer": (8, 8, (14, 14), same()),
    "one row at a time": (3, 9, (5, 42), same()),
    "parts of rows": (4, 17, (2, 150), same()),
    "a part of one column": (1, 8, (2, 65), same()),
    "channels and filters that fill no block": (5, 7, (7, 7), same()),
    "more blocks of channels": (17, 4, (3, 3), same()),
    "single pixels": (8, 16, (1, 1), same()),
    "no padding": (3, 8, (9, 9), Window((3, 3))),
    "stride": (3, 8, (9, 11), Window((3, 3), stride=(2, 2), pad_before=(1, 1), pad_after=(1, 1))),
    "stride, and a tap that never reads": (2, 8, (4, 6), Window((3, 3), stride=(2, 3), pad_before=(3, 3))),
    "dilated": (2, 8, (9, 9), same(3, 2)),
    "one tap": (17, 8, (6, 5), same(1)),
    "large kernel": (3, 8, (9, 9), same(7)),
    "wide kernel": (2, 8, (3, 20), Window((1, 12), pad_before=(0, 5), pad_after=(0, 6))),
}


@pytest.mark.parametrize("case", BY_FILTERS)
def test_by_filters(case: str) -> None:
    """The gradient of the weights: of all of them, and of those that attention keeps."""
    assert_same_by_filters(*BY_FILTERS[case], groups=1)


@pytest.mark.parametrize("case", ["channels and filters that fill no block", "more blocks of channels"])
def test_groups_by_filters(case: str) -> None:
    assert_same_by_filters(*BY_FILTERS[case], groups=2)


def assert_same_by_filters(channels: int, filters: int, size: Size, window: Window, groups: int) -> None:
    node, shape = layer(groups * filters, window, groups), (groups * channels, *size)
    constants = node.shape_constants(shape)
    assert says("pmeta_conv_has_filters", constants)
    rng = np.random.default_rng(channels)
    fw, bw = (rng.uniform(0.5, 2, groups * count).astype(np.float32) for count in (channels, filters))
    fw[1::3], bw[1::4] = 0, 0
    rows = np.flatnonzero(fw)
    x, gy = values(rng, *shape), values(rng, *node.output_shape(shape), flavour="special")
    start = accumulator(rng, groups * filters, channels, *window.kernel)
    for kept, gamma in ((None, None), (np.array([rows.size, *rows], np.uint16), bw)):
        seen = x if kept is None else fw[:, None, None] * x
        grad = in_place(start)
        read = seen if kept is None else seen[rows]
        call("pmeta_conv_weight_gradient", constants, kept, 0, read, None, gy, gamma, grad, variants=VARIANTS)
        contribution = conv.ConvOperator().contribution(
            node, seen, gy, Gamma(None if kept is None else fw, gamma), "weight"
        )
        assert_accumulates(grad, start, contribution)


@pytest.mark.parametrize(
    ("filters", "window"),
    [(1, same()), (8, same(9)), (8, Window((1, 13)))],
    ids=["depthwise", "too many taps", "too wide a kernel"],
)
def test_not_by_filters(filters: int, window: Window) -> None:
    constants = layer(filters, window).shape_constants((1, 20, 20))
    assert not says("pmeta_conv_has_filters", constants)


@pytest.mark.parametrize("variant", VECTOR_VARIANTS, ids=["longest vectors", "four lanes"])
def test_nothing_is_read_outside(tmp_path: Path, variant: Flags) -> None:
    """Of any tensor, all passes of all layers above; what is masked shows in no bit."""
    calls = []
    for channels, filters, size, window in [*BY_PIXELS.values(), *BY_FILTERS.values()]:
        node, shape = layer(filters, window), (channels, *size)
        constants, gy = node.shape_constants(shape), unwritten(*node.output_shape(shape))
        x, w, bias = (unwritten(*each) for each in (shape, (filters, channels, *window.kernel), (filters,)))
        calls += [
            ("pmeta_conv_forward", (constants, x, w, bias, gy)),
            ("pmeta_conv_input_gradient", (constants, 0, w, gy, x)),
            ("pmeta_conv_weight_gradient", (constants, None, 0, x, None, gy, None, w)),
        ]
    assert_stays_inside(calls, tmp_path, variant)
