"""What a graph must be: checked when it is constructed."""

from __future__ import annotations

import numpy as np
import pytest

from pmeta.codegen.errors import ModelError, UnsupportedError
from pmeta.codegen.graph import Graph, Node, frozen_float32
from pmeta.codegen.operators import Add, Gemm, Relu

pytestmark = pytest.mark.unit

W = frozen_float32(np.eye(3))


def graph(*nodes: Node) -> Graph:
    return Graph("g", "x", (3,), nodes, {"w": W, "v": W})


def test_branches_join() -> None:
    built = graph(Gemm("fc", "x", "a", "w", None, 3), Relu("relu", "x", "b"), Add("add", "a", "y", "b"))
    assert built.output_shape == (3,)
    assert [node.name for node in built.readers("x")] == ["fc", "relu"]


def test_a_weight_belongs_to_one_layer() -> None:
    """Shared, it would have two step sizes and two gradients."""
    with pytest.raises(UnsupportedError, match="weight 'w' is used twice"):
        graph(Gemm("first", "x", "a", "w", None, 3), Gemm("second", "a", "y", "w", None, 3))


def test_what_is_read_was_written_before() -> None:
    with pytest.raises(ModelError, match="node 'add': reads 'b', which no node before it writes"):
        graph(Gemm("fc", "x", "a", "w", None, 3), Add("add", "a", "y", "b"))


def test_what_is_written_is_read() -> None:
    with pytest.raises(ModelError, match="node 'fc': nothing reads its output 'a'"):
        graph(Gemm("fc", "x", "a", "w", None, 3), Relu("relu", "x", "y"))
