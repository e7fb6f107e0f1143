"""Add: C kernel ≡ simulator by bytes; what becomes of gradients is tested on whole models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.errors import ModelError, UnsupportedError
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators import Add
from pmeta.host.simulator.operators.add import AddOperator
from tests.differential.operators.comparison import assert_same, examples, flavours, generators, values
from tests.kernels import call, in_place, unwritten

pytestmark = [pytest.mark.differential, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

NODE = Add("add", "a", "y", "b")


@examples
@given(generators, st.integers(1, 300), st.sampled_from(["apart", "over a", "over b"]), flavours)
def test_forward(rng: np.random.Generator, count: int, where: str, flavour: str) -> None:
    a, b = in_place(values(rng, count, flavour=flavour)), in_place(values(rng, count, flavour=flavour))
    expected, _ = AddOperator().join(NODE, {}, [a.array.copy(), b.array.copy()])
    y = {"apart": unwritten(count), "over a": a, "over b": b}[where]
    call("pmeta_add", count, a, b, y)
    assert_same(y, expected)


def test_both_inputs_get_the_gradient() -> None:
    gy = np.array([1, -0.0, np.inf], np.float32)
    for gx in AddOperator().input_gradients(NODE, {}, None, gy):
        assert_same(gx, gy)


def test_only_equal_shapes_of_activations() -> None:
    with pytest.raises(ModelError, match=r"node 'add': adds shapes \(2, 3, 3\) and \(2, 1, 1\)"):
        NODE.joined_shape([(2, 3, 3), (2, 1, 1)])
    with pytest.raises(UnsupportedError, match="input 1 is a constant"):
        Add.from_onnx(OnnxNode("Add", "add", ("a", "w"), ("y",), {}, {"w": (3,)}))
