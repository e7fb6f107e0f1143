"""Conv in plain loops, as cores without a floating-point unit have it: C kernels ≡ simulator by bytes."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.adaptation import InputEncoding
from pmeta.codegen.operators import Window
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
    assert_same,
    examples,
    flavours,
    gamma,
    generators,
    kept_rows,
    stored_rows,
    stored_types,
    values,
    windows,
)
from tests.differential.operators.test_conv import Counts, Size, assert_input_gradient, counts, node
from tests.kernels import call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

UINT8 = 3  # in pmeta_conv_shape.h


@examples
@given(generators, windows(), counts, st.booleans(), flavours)
def test_forward(
    rng: np.random.Generator,
    window_and_size: tuple[Window, Size],
    counts: Counts,
    has_bias: bool,
    flavour: str,
) -> None:
    """Of a map, of one stored as float16, and of a sample as it travels."""
    (window, size), (channels, filters, groups) = window_and_size, counts
    x = values(rng, channels, *size, flavour=flavour)
    w = values(rng, filters, channels // groups, *window.kernel, flavour=flavour)
    b = values(rng, filters, flavour=flavour) if has_bias else None
    scale, offset = values(rng, channels), values(rng, channels)
    sample = rng.integers(0, 256, (channels, *size), np.uint8)
    decoded = decode(sample, InputEncoding("uint8", tuple(map(float, scale)), tuple(map(float, offset))))
    rounded, nothing = to_float16(x), (None, None)
    for seen, kind, read in (
        (x, ROW_TYPES["float32"], (x, *nothing)),
        (rounded, ROW_TYPES["float16"], (stored_rows(rounded, "float16"), *nothing)),
        (decoded, UINT8, (sample, scale, offset)),
    ):
        layer = node(filters, window, groups)
        y = unwritten(*layer.output_shape(x.shape))
        call("pmeta_conv_plain_forward", layer.shape_constants(x.shape), kind, *read, w, b, y)
        assert_same(y, conv.forward(seen, w, b, window, groups))


@examples
@given(generators, windows(), counts, flavours)
def test_input_gradient(
    rng: np.random.Generator, window_and_size: tuple[Window, Size], counts: Counts, flavour: str
) -> None:
    assert_input_gradient("pmeta_conv_plain_input_gradient", rng, *window_and_size, counts, flavour)


@examples
@given(generators, windows(), counts, stored_types, flavours)
def test_weight_gradient(
    rng: np.random.Generator, window_and_size: tuple[Window, Size], counts: Counts, kept_as: StoredType, flavour: str
) -> None:
    (window, size), (channels, filters, groups) = window_and_size, counts
    layer, pixels = node(filters, window, groups), size[0] * size[1]
    x = values(rng, channels, *size, flavour=flavour)
    gy = values(rng, *layer.output_shape(x.shape), flavour=flavour)
    fw, bw = gamma(rng, channels), gamma(rng, filters)
    start = accumulator(rng, filters, channels // groups, *window.kernel, flavour=flavour)
    kept, stored = (None, x) if fw is None else kept_rows(x, fw, weigh=True)
    rows, grad = stored_rows(stored.reshape(-1, pixels), kept_as), in_place(start)
    plane = None if kept_as == "float32" else unwritten(pixels)
    read = (kept, ROW_TYPES[kept_as], rows, plane)
    call("pmeta_conv_plain_weight_gradient", layer.shape_constants(x.shape), *read, gy, bw, grad)
    operator = conv.ConvOperator()
    seen = operator.kept_for_weights(x, functools.partial(as_stored, kept_as), fw, of_sample=False)
    assert_accumulates(grad, start, operator.contribution(layer, seen, gy, Gamma(fw, bw), "weight"))
