"""Concat: C kernels ≡ simulator by bytes; which inputs get gradients is tested on whole models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.errors import ModelError, UnsupportedError
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators import Concat
from pmeta.host.simulator.operators.concat import ConcatOperator
from tests.differential.operators.comparison import assert_same, autograd, examples, flavours, generators, values
from tests.kernels import call, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

NODE = Concat("concat", "a", "y", ("b", "c"))

channels = st.lists(st.integers(1, 9), min_size=2, max_size=4)
pixels = st.sampled_from([(), (1, 1), (2, 3), (5, 1)])


@examples
@given(generators, channels, pixels, flavours)
def test_forward(rng: np.random.Generator, channels: list[int], pixels: tuple[int, ...], flavour: str) -> None:
    inputs = [values(rng, count, *pixels, flavour=flavour) for count in channels]
    expected, _ = ConcatOperator().join(NODE, {}, inputs)
    y, begin = unwritten(*expected.shape), 0
    for x in inputs:
        call("pmeta_concat_forward", begin, x.size, x, y)
        begin += x.size
    assert_same(y, expected)


@examples
@given(generators, channels, pixels, flavours)
def test_input_gradient(rng: np.random.Generator, channels: list[int], pixels: tuple[int, ...], flavour: str) -> None:
    gy = values(rng, sum(channels), *pixels, flavour=flavour)
    _, saved = ConcatOperator().join(NODE, {}, [np.zeros((count, *pixels), np.float32) for count in channels])
    begin = 0
    for expected in ConcatOperator().input_gradients(NODE, {}, saved, gy):
        gx = unwritten(*expected.shape)
        call("pmeta_concat_input_gradient", begin, expected.size, gy, gx)
        assert_same(gx, np.ascontiguousarray(expected))
        begin += expected.size


@examples
@given(generators, channels, pixels)
def test_pytorch(rng: np.random.Generator, channels: list[int], pixels: tuple[int, ...]) -> None:
    inputs = [values(rng, count, *pixels) for count in channels]
    y, saved = ConcatOperator().join(NODE, {}, inputs)
    gy = values(rng, *y.shape)
    exact, gradients = autograd(lambda torch, *leaves: torch.cat(leaves), inputs, gy)
    assert np.array_equal(y, exact)
    for gx, expected in zip(ConcatOperator().input_gradients(NODE, {}, saved, gy), gradients, strict=True):
        assert np.array_equal(gx, expected)


def test_nothing_is_rounded_or_replaced() -> None:
    a, b = np.array([-0.0, np.nan], np.float32), np.array([np.inf, 1e-45, -np.inf], np.float32)
    y, saved = ConcatOperator().join(NODE, {}, [a, b])
    assert_same(y, np.array([-0.0, np.nan, np.inf, 1e-45, -np.inf], np.float32))
    for gx, expected in zip(ConcatOperator().input_gradients(NODE, {}, saved, y), (a, b), strict=True):
        assert_same(gx, expected)


def test_only_activations_that_differ_in_channels_alone() -> None:
    assert NODE.joined_shape([(2, 3, 3), (1, 3, 3), (4, 3, 3)]) == (7, 3, 3)
    assert NODE.joined_shape([(2,), (1,), (4,)]) == (7,)
    for other in ((2, 3, 4), (2, 3), (2,)):
        with pytest.raises(ModelError, match=r"node 'concat': joins shapes \(2, 3, 3\), "):
            NODE.joined_shape([(2, 3, 3), other])
    with pytest.raises(UnsupportedError, match="input 1 is a constant"):
        Concat.from_onnx(OnnxNode("Concat", "concat", ("a", "w"), ("y",), {"axis": 1}, {"w": np.zeros(3, np.float32)}))
    with pytest.raises(UnsupportedError, match="axis = 2 is not supported, only 1"):
        Concat.from_onnx(OnnxNode("Concat", "concat", ("a", "b"), ("y",), {"axis": 2}, {}))
