"""Conv: C kernels ≡ simulator by bytes; simulator ≈ PyTorch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.adaptation import InputEncoding
from pmeta.codegen.errors import ModelError
from pmeta.codegen.operators import Conv, Window
from pmeta.codegen.storage import StoredType
from pmeta.host.simulator.operators import conv
from pmeta.host.simulator.operators.operator import Gamma
from pmeta.host.simulator.sample_pass import decode
from pmeta.host.simulator.storage import to_float16
from tests.differential.operators.comparison import (
    ROW_TYPES,
    accumulator,
    as_stored,
    assert_accumulates,
    assert_close,
    assert_same,
    autograd,
    channel_counts,
    examples,
    flavours,
    gamma,
    generators,
    kept_rows,
    smooth,
    stored_rows,
    stored_types,
    values,
    windows,
    windows_of_equal_width,
)
from tests.kernels import call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

Size = tuple[int, int]
Counts = tuple[int, int, int]  # channels, filters, groups


counts = st.one_of(
    st.tuples(channel_counts, channel_counts, st.just(1)),
    st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 3]), st.sampled_from([2, 3, 5, 8])).map(
        lambda each: (each[0] * each[2], each[1] * each[2], each[2])
    ),
)  # down to one channel and one filter in a group


any_window = st.one_of(windows(), windows_of_equal_width())


def node(filters: int, window: Window, groups: int) -> Conv:
    return Conv("conv", "x", "y", "weight", "bias", filters, window, groups)


@examples
@given(generators, any_window, counts, st.booleans(), flavours)
def test_forward(
    rng: np.random.Generator,
    window_and_size: tuple[Window, Size],
    counts: Counts,
    has_bias: bool,
    flavour: str,
) -> None:
    (window, size), (channels, filters, groups) = window_and_size, counts
    x = values(rng, channels, *size, flavour=flavour)
    w = values(rng, filters, channels // groups, *window.kernel, flavour=flavour)
    b = values(rng, filters, flavour=flavour) if has_bias else None
    layer = node(filters, window, groups)
    y = unwritten(*layer.output_shape(x.shape))
    call("pmeta_conv_forward", layer.shape_constants(x.shape), x, w, b, y)
    assert_same(y, conv.forward(x, w, b, window, groups))


@examples
@given(generators, windows(), channel_counts, channel_counts, flavours)
def test_few_and_many_sums_of_the_weight_gradient(
    rng: np.random.Generator, window_and_size: tuple[Window, Size], channels: int, filters: int, flavour: str
) -> None:
    """The simulator's two ways to go through the pixels, of which large layers take the second."""
    window, size = window_and_size
    x = values(rng, channels, *size, flavour=flavour)
    gy = values(rng, filters, *window.output_size(size, "conv"), flavour=flavour)
    assert_same(conv._many_sums(gy, x, window), conv._few_sums(gy, x, window))


@examples
@given(generators, any_window, counts, st.booleans())
def test_forward_of_an_encoded_sample(
    rng: np.random.Generator, window_and_size: tuple[Window, Size], counts: Counts, has_bias: bool
) -> None:
    """The same as decoding it first."""
    (window, size), (channels, filters, groups) = window_and_size, counts
    sample = rng.integers(0, 256, (channels, *size), np.uint8)
    scale, offset = values(rng, channels), values(rng, channels)
    w, b = values(rng, filters, channels // groups, *window.kernel), values(rng, filters) if has_bias else None
    layer = node(filters, window, groups)
    y = unwritten(*layer.output_shape(sample.shape))
    call("pmeta_conv_forward_uint8", layer.shape_constants(sample.shape), sample, scale, offset, w, b, y)
    x = decode(sample, InputEncoding("uint8", tuple(map(float, scale)), tuple(map(float, offset))))
    assert_same(y, conv.forward(x, w, b, window, groups))


@examples
@given(generators, windows(), counts, st.booleans())
def test_forward_of_a_float16_map(
    rng: np.random.Generator, window_and_size: tuple[Window, Size], counts: Counts, has_bias: bool
) -> None:
    """The same as decoding it first."""
    (window, size), (channels, filters, groups) = window_and_size, counts
    x = to_float16(values(rng, channels, *size))
    w, b = values(rng, filters, channels // groups, *window.kernel), values(rng, filters) if has_bias else None
    layer = node(filters, window, groups)
    y = unwritten(*layer.output_shape(x.shape))
    call("pmeta_conv_forward_float16", layer.shape_constants(x.shape), stored_rows(x, "float16"), w, b, y)
    assert_same(y, conv.forward(x, w, b, window, groups))


def assert_input_gradient(
    kernel: str, rng: np.random.Generator, window: Window, size: Size, counts: Counts, flavour: str
) -> None:
    """A kernel's gradient of the input is the simulator's, of all filters at once and filter by filter."""
    channels, filters, groups = counts
    layer, shape = node(filters, window, groups), (channels, *size)
    w = values(rng, filters, channels // groups, *window.kernel, flavour=flavour)
    gy = values(rng, *layer.output_shape(shape), flavour=flavour)
    gx, expected = unwritten(*shape), conv.input_gradient(gy, w, window, shape, groups)
    call(kernel, layer.shape_constants(shape), 1, w, gy, gx)
    assert_same(gx, expected)
    if groups == 1:  # filter by filter
        gx, one = unwritten(*shape), node(1, window, 1).shape_constants(shape)
        for f in range(filters):
            call(kernel, one, int(f == 0), w[f], gy[f], gx)
        assert_same(gx, expected)


@examples
@given(generators, any_window, counts, flavours)
def test_input_gradient(
    rng: np.random.Generator, window_and_size: tuple[Window, Size], counts: Counts, flavour: str
) -> None:
    assert_input_gradient("pmeta_conv_input_gradient", rng, *window_and_size, counts, flavour)


@examples
@given(generators, any_window, counts, stored_types, flavours)
def test_weight_gradient(
    rng: np.random.Generator, window_and_size: tuple[Window, Size], counts: Counts, kept_as: StoredType, flavour: str
) -> None:
    (window, size), (channels, filters, groups) = window_and_size, counts
    layer = node(filters, window, groups)
    x = values(rng, channels, *size, flavour=flavour)
    gy = values(rng, *layer.output_shape(x.shape), flavour=flavour)
    fw, bw = gamma(rng, channels), gamma(rng, filters)
    start = accumulator(rng, filters, channels // groups, *window.kernel, flavour=flavour)
    kept, stored = (None, x) if fw is None else kept_rows(x, fw, weigh=True)
    grad, pixels = in_place(start), size[0] * size[1]
    read = (ROW_TYPES[kept_as], stored_rows(stored.reshape(-1, pixels), kept_as))
    plane = None if kept_as == "float32" else unwritten(pixels)
    call("pmeta_conv_weight_gradient", layer.shape_constants(x.shape), kept, *read, plane, gy, bw, grad)
    operator = conv.ConvOperator()
    seen = operator.kept_for_weights(x, functools.partial(as_stored, kept_as), fw, of_sample=False)
    assert_accumulates(grad, start, operator.contribution(layer, seen, gy, Gamma(fw, bw), "weight"))


@examples
@given(generators, windows(), counts)
def test_pytorch(rng: np.random.Generator, window_and_size: tuple[Window, Size], counts: Counts) -> None:
    (window, size), (channels, filters, groups) = window_and_size, counts
    (top, left), (bottom, right) = window.pad_before, window.pad_after

    def convolution(torch: Any, x: Any, w: Any, b: Any) -> Any:
        padded = torch.nn.functional.pad(x, (left, right, top, bottom))
        return torch.nn.functional.conv2d(padded, w, b, window.stride, 0, window.dilation, groups)

    inputs = [
        smooth(rng, channels, *size),
        smooth(rng, filters, channels // groups, *window.kernel),
        smooth(rng, filters),
    ]
    x, w, b = inputs
    y = conv.forward(x, w, b, window, groups)
    gy = smooth(rng, *y.shape)
    exact, (exact_gx, exact_gw, _) = autograd(convolution, inputs, gy)
    # The same sums over magnitudes: what the error bounds of sums grow with.
    size_y, (size_gx, size_gw, _) = autograd(convolution, [np.abs(array) for array in inputs], np.abs(gy))
    taps = window.kernel[0] * window.kernel[1]
    assert_close(y, exact, channels // groups * taps + 1, size_y.max())
    assert_close(
        conv.input_gradient(gy, w, window, x.shape, groups), exact_gx, filters // groups * taps + 1, size_gx.max()
    )
    assert_close(conv.weight_gradient(gy, x, window, groups), exact_gw, gy[0].size + 1, size_gw.max())


def test_depthwise() -> None:
    """Each channel with a filter of its own; attention skips channel by channel."""
    layer = node(3, Window((1, 1)), 3)
    x, w, gy = (np.arange(1, 4, dtype=np.float32)[:, None, None] * factor for factor in (1, 10, 100))
    w = w[..., None]
    assert_same(conv.forward(x, w, None, layer.window, 3), np.array([10, 40, 90], np.float32)[:, None, None])
    assert_same(
        conv.input_gradient(gy, w, layer.window, x.shape, 3), np.array([1e3, 4e3, 9e3], np.float32)[:, None, None]
    )
    fw, bw = np.array([0, 1, 1], np.float32), np.array([1, 1, 0], np.float32)
    start = np.zeros_like(w)
    added = conv.ConvOperator().contribution(layer, x, gy, Gamma(fw, bw), "weight")
    assert_same(added.added_to(start), np.array([0, 400, 0], np.float32).reshape(w.shape))


def test_groups_that_do_not_divide_are_refused() -> None:
    for filters, channels in ((4, 3), (3, 4)):
        with pytest.raises(ModelError, match=rf"2 groups do not divide {channels} channels and {filters} filters"):
            node(filters, Window((1, 1)), 2).output_shape((channels, 1, 1))
