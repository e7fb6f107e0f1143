"""Constants that a file computes: the same as ONNX's own reference implementation, and never many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pmeta.codegen.errors import UnsupportedError
from pmeta.codegen.onnx_constants import COMPUTED, MOST_COMPUTED, computed, is_computed
from pmeta.codegen.onnx_node import OnnxNode

pytestmark = pytest.mark.unit

INT, FLOAT = np.int64, np.float32
ROW, TABLE = np.arange(6, dtype=INT) - 2, np.arange(24, dtype=FLOAT).reshape(2, 3, 4)
CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("Add", [TABLE, TABLE[0]], {}),
    ("Sub", [ROW, np.array(3)], {}),
    ("Mul", [ROW, ROW], {}),
    ("Div", [ROW, np.array(2)], {}),
    ("Div", [TABLE, np.full(4, 3, FLOAT)], {}),
    ("Cast", [ROW], {"to": TensorProto.FLOAT}),
    ("Cast", [TABLE / 5], {"to": TensorProto.INT64}),
    ("CastLike", [ROW, TABLE], {}),
    ("Concat", [TABLE, TABLE], {"axis": 1}),
    ("Concat", [TABLE, TABLE], {"axis": -1}),
    ("ConstantOfShape", [np.array([2, 3])], {}),
    ("ConstantOfShape", [np.array([4])], {"value": numpy_helper.from_array(np.array([7]))}),
    ("Expand", [TABLE[:1], np.array([2, 1, 4])], {}),
    ("Expand", [TABLE[0], np.array([1, 1])], {}),
    ("Gather", [ROW, np.array(-1)], {}),
    ("Gather", [TABLE, np.array([[0, 2], [1, 1]])], {"axis": 1}),
    ("Range", [np.array(1), np.array(9), np.array(3)], {}),
    ("Range", [np.array(5), np.array(0), np.array(-2)], {}),
    ("Range", [np.array(5), np.array(0), np.array(2)], {}),
    ("Reshape", [TABLE, np.array([0, -1])], {}),
    ("Reshape", [TABLE, np.array([4, 0, 2])], {}),
    ("Slice", [ROW, np.array([1]), np.array([-1])], {}),
    ("Slice", [TABLE, np.array([0, 1]), np.array([9, 3]), np.array([2, 1])], {}),
    ("Slice", [TABLE, np.array([-1]), np.array([-(2**63) + 1]), np.array([1]), np.array([-1])], {}),
    ("Squeeze", [TABLE[:1]], {}),
    ("Squeeze", [TABLE[:, :1], np.array([-2])], {}),
    ("Transpose", [TABLE], {}),
    ("Transpose", [TABLE], {"perm": [1, 0, 2]}),
    ("Unsqueeze", [ROW, np.array([0, -1])], {}),
]


def constant_node(op_type: str, inputs: list[Any], attributes: dict[str, Any]) -> OnnxNode:
    names = [f"input{n}" for n in range(len(inputs))]
    proto = helper.make_node(op_type, names, ["y"], **attributes)
    return OnnxNode.from_proto(proto, 0, dict(zip(names, map(np.asarray, inputs), strict=True)))


@pytest.mark.parametrize(("op_type", "inputs", "attributes"), CASES)
def test_as_onnx_computes_it(op_type: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    node = constant_node(op_type, inputs, attributes)
    assert is_computed(node)
    found = computed(node)
    proto = helper.make_node(op_type, node.inputs, ["y"], **attributes)
    (expected,) = ReferenceEvaluator(proto).run(None, dict(node.constants))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert not found.flags.writeable


def test_every_operator_has_a_case() -> None:
    assert {op_type for op_type, *_ in CASES} == set(COMPUTED)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes"),
    [
        ("ConstantOfShape", [np.array([2**40, 2**40])], {}),
        ("ConstantOfShape", [np.array([-1])], {}),
        ("Expand", [TABLE, np.array([2**30, 1, 1, 1])], {}),
        ("Range", [np.array(0), np.array(2**60), np.array(1)], {}),
        ("Range", [np.array(0.0), np.array(1.0), np.array(1e-300)], {}),
        ("Gather", [np.zeros((1, 2**15), FLOAT), np.zeros(2**15, INT)], {}),
        ("Mul", [np.zeros((MOST_COMPUTED, 1), FLOAT), np.zeros((1, MOST_COMPUTED), FLOAT)], {}),
        ("Concat", [np.zeros(2 * MOST_COMPUTED, FLOAT)] * 2, {"axis": 0}),
    ],
)
def test_too_many_numbers_are_not_computed(op_type: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="too many sizes"):
        computed(constant_node(op_type, inputs, attributes))


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "message"),
    [
        ("Div", [ROW, np.array(0)], {}, "does not fit"),
        ("Div", [TABLE, np.zeros((), FLOAT)], {}, "NaN or infinite"),
        ("Add", [ROW, ROW[:2]], {}, "does not fit"),
        ("Gather", [ROW, np.array(6)], {}, "does not fit"),
        ("Range", [np.array(1), np.array(2), np.array(0)], {}, "does not fit"),
        ("Reshape", [ROW, np.array([4])], {}, "does not fit"),
        ("Reshape", [ROW, np.array([1, 0])], {}, "does not fit"),
        ("Slice", [ROW, np.array([0]), np.array([1]), np.array([3])], {}, "does not fit"),
        ("Squeeze", [ROW, np.array([0])], {}, "does not fit"),
        ("Transpose", [TABLE], {"perm": [0, 0, 1]}, "does not fit"),
        ("Unsqueeze", [ROW, np.array([5])], {}, "does not fit"),
        ("Cast", [ROW], {"to": 99}, "does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(
    op_type: str, inputs: list[Any], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        computed(constant_node(op_type, inputs, attributes))
    assert "\n" not in str(caught.value)
