"""What files say in other words than the graph: numbers stay those of onnxruntime, names those of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ModelError, UnsupportedError
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.modelfile import load_model, save_model
from pmeta.codegen.operators import Conv, Gemm, GroupNorm, MaxPool
from tests.unit.test_onnx_graph import WAYS, assert_runs_alike, exported, kinds, node, with_record

pytestmark = pytest.mark.unit

RNG = np.random.default_rng(0)
INPUT = (2, 5, 6)


def random(*shape: int) -> Float32Array:
    return RNG.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> Float32Array:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def file(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any],
    features: int,
    input_shape: tuple[int, ...] = INPUT,
) -> Path:
    """`nodes` lead from "x" to "d", of `features` numbers, before a Flatten and a fully connected layer "fc"."""
    last = [node("Flatten", "d", "f", axis=1), helper.make_node("Gemm", ["f", "v"], ["y"], name="fc", transB=1)]
    graph = helper.make_graph(
        [*nodes, *last],
        "file",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *input_shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", WAYS])],
        [numpy_helper.from_array(array, name) for name, array in {**constants, "v": random(WAYS, features)}.items()],
    )
    return with_record(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def assert_reads(path: Path, operators: list[str], layers: list[str]) -> Model:
    """The graph that is read has these operators and layers, computes the same, and survives being written."""
    model = assert_runs_alike(path, batch=3)
    assert kinds(model) == [*operators, "Flatten", "Gemm"]
    assert [layer.name for layer in model.graph.layers] == [*layers, "fc"]
    save_model(model, path.with_name("again.onnx"))
    assert load_model(path.with_name("again.onnx")).graph.same_as(model.graph)
    assert_runs_alike(path.with_name("again.onnx"), batch=3)
    return model


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


# --- BatchNormalization --------------------------------------------------------------------------------------


def statistics(channels: int) -> dict[str, Float32Array]:
    return {"s": random(channels), "b": random(channels), "m": random(channels), "var": positive(channels)}


NORM = node("BatchNormalization", "c s b m var", "d", epsilon=0.01)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("between", [False, True])
def test_batch_normalization_becomes_part_of_the_convolution(bias: bool, between: bool, tmp_path: Path) -> None:
    constants = {**statistics(3), "w": random(3, 2, 3, 3), "wb": random(3)}
    conv = node("Conv", "x w wb" if bias else "x w", "i" if between else "c", pads=[1, 1, 1, 1])
    nodes = [conv, *([node("Identity", "i", "c")] if between else []), NORM]
    model = assert_reads(file(tmp_path / "m.onnx", nodes, constants, 90), ["Conv"], [conv.name])
    (layer,) = (found for found in model.graph.nodes if isinstance(found, Conv))
    scale, shift, mean, variance, weight, start = (array.astype(np.float64) for array in constants.values())
    factor = scale / np.sqrt(variance + np.float32(0.01))
    expected = (factor * ((start if bias else 0) - mean) + shift).astype(np.float32)
    assert layer.bias is not None
    folded = model.graph.weights[layer.weight]
    assert folded.tobytes() == (factor[:, None, None, None] * weight).astype(np.float32).tobytes()  # rounded once
    assert model.graph.weights[layer.bias].tobytes() == expected.tobytes()


def test_batch_normalization_becomes_part_of_a_fully_connected_layer(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "a"), node("Add", "a wb", "c"), NORM]
    path = file(tmp_path / "m.onnx", nodes, {**statistics(7), "w": random(4, 7), "wb": random(7)}, 7, (4,))
    assert_reads(path, ["Gemm"], ["a"])


def test_what_follows_a_folded_node_is_read(tmp_path: Path) -> None:
    """Shapes that were computed before the fold are computed again."""
    nodes = [
        *(node("Conv", "x w", "c"), node("BatchNormalization", "c s b m var", "n"), node("Relu", "n", "r")),
        node("Reshape", "r shape", "d"),
    ]
    constants = {**statistics(3), "w": random(3, 2, 1, 1), "shape": np.array([0, -1], np.int64)}
    model = assert_runs_alike(file(tmp_path / "m.onnx", nodes, constants, 90), batch=2)
    assert kinds(model) == ["Conv", "Relu", "Flatten", "Flatten", "Gemm"]


several_outputs = helper.make_node("BatchNormalization", ["c", "s", "b", "m", "var"], ["d", "e", "g"])


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Relu", "x", "c"), NORM], r"node 'd' \(BatchNormalization\): there is no Conv or Gemm right before it"),
        ([node("BatchNormalization", "x s b m var", "d")], "there is no Conv or Gemm right before it"),
        (
            [node("Conv", "x w", "c"), node("BatchNormalization", "c s b m var", "d", training_mode=1)],
            "training_mode = 1 is not supported, only 0",
        ),
        (
            [node("Conv", "x w", "c"), several_outputs],
            "it computes statistics, as in training",
        ),
        (
            [node("Conv", "x w", "c"), node("Relu", "c", "r"), NORM],
            r"node 'd' \(BatchNormalization\): other nodes read 'c', too",
        ),
        (
            [node("Conv", "x w", "c"), node("BatchNormalization", "c s b m var", "n"), node("Add", "n c", "d")],
            r"node 'd' \(Add\): reads 'c', which is not computed by itself: node 'n' \(BatchNormalization\) is part",
        ),
        ([node("Conv", "x w", "c"), node("BatchNormalization", "c s b m small", "d")], "do not fit an activation"),
        ([node("Conv", "x w", "c"), node("BatchNormalization", "c s b m zero", "d", epsilon=0.0)], "are not finite"),
        ([node("Conv", "x w", "c"), node("BatchNormalization", "c s b m x", "d")], "input 4 is not a constant"),
    ],
)
def test_batch_normalization_that_stays_one_is_refused(
    nodes: list[onnx.NodeProto], message: str, tmp_path: Path
) -> None:
    constants = {**statistics(2), "w": random(2, 2, 1, 1), "small": positive(3), "zero": np.zeros(2, np.float32)}
    assert_refused(file(tmp_path / "m.onnx", nodes, constants, 60), message)


# --- fully connected layers ----------------------------------------------------------------------------------

FACTORS = {"alpha": float(np.float32(0.3)), "beta": -1.5}


@pytest.mark.parametrize(
    ("nodes", "shapes"),
    [
        ([node("MatMul", "x w", "d")], {"w": (4, 7)}),
        ([node("MatMul", "x w", "a"), node("Add", "a b", "d")], {"w": (4, 7), "b": (7,)}),
        ([node("MatMul", "x w", "a"), node("Add", "b a", "d")], {"w": (4, 7), "b": (1, 7)}),
        ([node("Gemm", "x w", "d")], {"w": (4, 7)}),
        ([node("Gemm", "x w b", "d")], {"w": (4, 7), "b": (7,)}),
        ([node("Gemm", "x w b", "d", transB=1)], {"w": (7, 4), "b": (1, 7)}),
        ([node("Gemm", "x w b", "d", **FACTORS)], {"w": (4, 7), "b": (7,)}),
        ([node("Gemm", "x w b", "d", transB=1, **FACTORS)], {"w": (7, 4), "b": (7,)}),
        ([node("Gemm", "x w", "a", transB=1), node("Add", "a b", "d")], {"w": (7, 4), "b": (7,)}),
    ],
)
def test_fully_connected_layers(
    nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]], tmp_path: Path
) -> None:
    constants = {name: random(*shape) for name, shape in shapes.items()}
    model = assert_reads(file(tmp_path / "m.onnx", nodes, constants, 7, (4,)), ["Gemm"], [nodes[0].name])
    layer = model.graph.nodes[0]
    assert isinstance(layer, Gemm)
    assert (layer.bias is not None) == ("b" in shapes)


def test_weights_that_fit_keep_their_names(tmp_path: Path) -> None:
    nodes, constants = [node("Gemm", "x w b", "d", transB=1)], {"w": random(7, 4), "b": random(7)}
    model = assert_reads(file(tmp_path / "m.onnx", nodes, constants, 7, (4,)), ["Gemm"], ["d"])
    assert model.graph.layers[0].weight_names == ("w", "b")


def test_layers_that_share_constants_get_weights_of_their_own(tmp_path: Path) -> None:
    nodes = [node("MatMul", "x w", "a"), node("MatMul", "a w", "d")]
    model = assert_reads(file(tmp_path / "m.onnx", nodes, {"w": random(4, 4)}, 4, (4,)), ["Gemm", "Gemm"], ["a", "d"])
    assert len(model.graph.weights) == 3


def test_a_constant_added_to_maps_is_a_bias(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "c"), node("Add", "c b", "d")]
    for shape in ((3, 1, 1), (1, 3, 1, 1)):
        path = file(tmp_path / "m.onnx", nodes, {"w": random(3, 2, 1, 1), "b": random(*shape)}, 90)
        assert_reads(path, ["Conv"], ["c"])


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("MatMul", "w x", "d")], "it reads no activation"),
        ([node("MatMul", "x v3", "d")], r"weights of shape \(1, 4, 4\); use weights of shape \(inputs, outputs\)"),
        ([node("Gemm", "x w", "d", transA=1)], "transA = 1 is not supported"),
        ([node("Gemm", "x w", "d", alpha=1e38)], "are not finite"),
        ([node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Add", "c b", "d")], "input 1 is a constant; use"),
        ([node("MatMul", "x w", "a"), node("Add", "a one", "d")], "input 1 is a constant; use the bias"),
        ([node("Relu", "x", "a"), node("Add", "a b", "d")], "input 1 is a constant; use the bias"),
        ([node("Add", "b b", "c"), node("Add", "x c", "d")], "input 1 is a constant; use the bias"),
    ],
)
def test_what_is_no_layer_is_refused(nodes: list[onnx.NodeProto], message: str, tmp_path: Path) -> None:
    constants = {"w": 10 * positive(4, 4), "v3": random(1, 4, 4), "b": random(4), "one": random(1)}
    assert_refused(file(tmp_path / "m.onnx", nodes, constants, 4, (4,)), message)


# --- padding by a rule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"])
@pytest.mark.parametrize(
    ("kernel", "strides"), [((3, 3), (1, 1)), ((2, 4), (1, 1)), ((2, 3), (2, 2)), ((3, 2), (3, 2))]
)
def test_pads_that_follow_from_a_rule(
    rule: str, kernel: tuple[int, int], strides: tuple[int, int], tmp_path: Path
) -> None:
    height, width = (
        -(-size // s) if rule.startswith("SAME") else (size - k) // s + 1
        for size, k, s in zip(INPUT[1:], kernel, strides, strict=True)
    )
    window = {"auto_pad": rule, "strides": strides}
    convolution = [node("Conv", "x w", "d", **window)]
    constants = {"w": random(3, 2, *kernel)}
    path = file(tmp_path / "conv.onnx", convolution, constants, 3 * height * width)
    assert_reads(path, ["Conv"], ["d"])
    pooling = [node("MaxPool", "x", "d", kernel_shape=kernel, **window)]
    assert_reads(file(tmp_path / "pool.onnx", pooling, {}, 2 * height * width), ["MaxPool"], [])
    pooling = [node("AveragePool", "x", "d", kernel_shape=kernel, **window)]
    assert_reads(file(tmp_path / "average.onnx", pooling, {}, 2 * height * width), ["AveragePool"], [])


def test_pads_of_dilated_windows(tmp_path: Path) -> None:
    """Which onnxruntime does not run: by hand. Nor windows smaller than their stride, which need no pads."""
    nodes = [node("Conv", "x w", "d", auto_pad="SAME_LOWER", dilations=[2, 1], strides=[1, 5])]
    model = load_model(file(tmp_path / "m.onnx", nodes, {"w": random(3, 2, 2, 4)}, 30))
    conv = model.graph.nodes[0]
    assert isinstance(conv, Conv)
    assert (conv.window.pad_before, conv.window.pad_after) == ((1, 2), (1, 1))
    nodes = [node("MaxPool", "x", "d", auto_pad="SAME_UPPER", kernel_shape=[1, 2], strides=[3, 4])]
    pool = load_model(file(tmp_path / "m.onnx", nodes, {}, 8)).graph.nodes[0]
    assert isinstance(pool, MaxPool)
    assert (pool.window.pad_before, pool.window.pad_after) == ((0, 0), (0, 0))


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 0, 0, 1), (0, 1, 1, 1)])
@pytest.mark.parametrize("kernel", [(2, 2), (3, 2), (2, 3)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (3, 2)])
def test_sizes_that_are_rounded_up(
    strides: tuple[int, int], kernel: tuple[int, int], pads: tuple[int, ...], tmp_path: Path
) -> None:
    window = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": 1}
    padded = [n + pads[axis] + pads[axis + 2] for axis, n in enumerate(INPUT[1:])]
    height, width = (-(-(n - k) // s) + 1 for n, k, s in zip(padded, kernel, strides, strict=True))
    starts = (height - 1) * strides[0] - pads[0], (width - 1) * strides[1] - pads[1]
    for op_type in ("MaxPool", "AveragePool"):
        path = file(tmp_path / "m.onnx", [node(op_type, "x", "d", **window)], {}, 2 * height * width)
        if starts[0] < INPUT[1] and starts[1] < INPUT[2]:
            assert_reads(path, [op_type], [])
        else:
            assert_refused(path, "its last window sees padding only")


def test_sizes_that_are_rounded_up_where_the_padding_counts_are_refused(tmp_path: Path) -> None:
    window = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 1}
    assert_refused(file(tmp_path / "m.onnx", [node("AveragePool", "x", "d", **window)], {}, 18), "ceil_mode = 1 with")


def test_padding_before_a_convolution(tmp_path: Path) -> None:
    nodes = [node("Pad", "x pads", "p"), node("Conv", "p w", "d", pads=[1, 0, 0, 1])]
    constants = {"pads": np.array([0, 0, 1, 2, 0, 0, 0, 3]), "w": random(3, 2, 3, 3)}
    model = assert_reads(file(tmp_path / "m.onnx", nodes, constants, 3 * 5 * 10), ["Conv"], ["d"])
    conv = model.graph.nodes[0]
    assert isinstance(conv, Conv)
    assert (conv.window.pad_before, conv.window.pad_after) == ((2, 2), (0, 4))


@pytest.mark.parametrize(
    ("pad", "after", "message"),
    [
        (node("Pad", "x pads", "p", mode="edge"), node("Conv", "p w", "d"), "mode = edge is not supported"),
        (node("Pad", "x pads one", "p"), node("Conv", "p w", "d"), "it pads with other numbers than zeros"),
        (node("Pad", "x channels", "p"), node("Conv", "p w", "d"), "do not fit a sample"),
        (node("Pad", "x less", "p"), node("Conv", "p w", "d"), "do not fit a sample"),
        (node("Pad", "x pads", "p"), node("Relu", "p", "d"), "it reads what a Pad writes; only a Conv"),
        (node("Pad", "x pads", "p"), node("Conv", "p w", "d", auto_pad="SAME_UPPER"), "it reads what a Pad writes"),
    ],
)
def test_other_padding_is_refused(pad: onnx.NodeProto, after: onnx.NodeProto, message: str, tmp_path: Path) -> None:
    constants = {
        **{"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "channels": np.array([0, 1, 0, 0, 0, 0, 0, 0])},
        **{"less": np.array([0, 0, -1, 0, 0, 0, 0, 0]), "one": np.float32(1), "w": random(3, 2, 3, 3)},
    }
    assert_refused(file(tmp_path / "m.onnx", [pad, after], constants, 90), message)


def test_an_unknown_rule_is_refused(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "d", auto_pad="SAME")]
    assert_refused(file(tmp_path / "m.onnx", nodes, {"w": random(3, 2, 3, 3)}, 90), "auto_pad = SAME is not supported")


# --- factors, and normalizations that are written out --------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("inputs", ["c factor", "factor c"])
def test_a_factor_is_part_of_the_layer_before_it(inputs: str, bias: bool, tmp_path: Path) -> None:
    nodes = [node("Conv", "x w b" if bias else "x w", "c"), node("Mul", inputs, "d")]
    constants = {"w": random(3, 2, 1, 1), "b": random(3), "factor": random(3, 1, 1)}
    assert_reads(file(tmp_path / "m.onnx", nodes, constants, 90), ["Conv"], ["c"])


def window_of_one(shape: tuple[int, ...]) -> onnx.NodeProto:
    """From "x" to "x1"; only a window tells that a sample of two dimensions is a map."""
    if len(shape) == 1:
        return node("Relu", "x", "x1")
    return node("MaxPool", "x", "x1", kernel_shape=[1] * (len(shape) - 1))


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 7), (4,)])
def test_group_normalization_in_older_files(shape: tuple[int, ...], groups: int, tmp_path: Path) -> None:
    """Groups as channels, InstanceNormalization, back, and one factor and one summand per channel."""
    per_channel = (4, *[1] * (len(shape) - 1))
    nodes = [
        *(window_of_one(shape), node("Shape", "x1", "size"), node("Reshape", "x1 grouped", "g")),
        *(node("InstanceNormalization", "g s0 b0", "n"), node("Reshape", "n size", "m")),
        *(node("Mul", "m scale", "z"), node("Add", "z shift", "d")),
    ]
    constants = {
        **{"grouped": np.array([0, groups, -1]), "s0": positive(groups), "b0": random(groups)},
        **{"scale": random(*per_channel), "shift": random(*per_channel)},
    }
    path = file(tmp_path / "m.onnx", nodes, constants, int(np.prod(shape)), shape)
    model = assert_reads(path, ["Relu" if shape == (4,) else "MaxPool", "GroupNorm"], ["n"])
    norm = model.graph.nodes[1]
    assert isinstance(norm, GroupNorm) and norm.groups == groups


def test_groups_that_are_not_undone_are_refused(tmp_path: Path) -> None:
    nodes = [node("Relu", "x", "r"), node("Reshape", "r grouped", "g"), node("InstanceNormalization", "g s b", "n")]
    nodes.append(node("Relu", "n", "d"))
    constants = {"grouped": np.array([0, 2, -1]), "s": positive(2), "b": random(2)}
    path = file(tmp_path / "m.onnx", nodes, constants, 60)
    assert_refused(path, r"turns a sample of \(2, 5, 6\) into one of \(2, 30\)")
    constants = {"grouped": np.array([0, 3, -1]), "s": positive(3), "b": random(3)}
    assert_refused(file(tmp_path / "m.onnx", nodes, constants, 60), "3 groups do not divide 2")


# --- normalizations ------------------------------------------------------------------------------------------


def test_instance_normalization(tmp_path: Path) -> None:
    nodes = [node("InstanceNormalization", "x s b", "d", epsilon=0.1)]
    path = file(tmp_path / "m.onnx", nodes, {"s": random(2), "b": random(2)}, 60)
    layer = assert_reads(path, ["GroupNorm"], ["d"]).graph.nodes[0]
    assert isinstance(layer, GroupNorm)
    assert (layer.groups, layer.weight_names, layer.epsilon) == (2, ("s", "b"), float(np.float32(0.1)))


def per_channel(values: Float32Array, *pixels: int) -> Float32Array:
    return np.broadcast_to(values.reshape(-1, *[1] * len(pixels)), (len(values), *pixels)).copy()


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("pixels", [(), (1, 1), (5, 6)])
@pytest.mark.parametrize("axis", [1, -3])
def test_layer_normalization_of_maps(shift: bool, pixels: tuple[int, ...], axis: int, tmp_path: Path) -> None:
    constants = {"s": per_channel(random(2), *pixels), "b": per_channel(random(2), *pixels)}
    if not pixels:
        constants = {"s": random(1), "b": random(1)}  # the same for all channels
    nodes = [node("LayerNormalization", "x s b" if shift else "x s", "d", axis=axis)]
    path = file(tmp_path / "m.onnx", nodes, constants, 60)
    layer = assert_reads(path, ["GroupNorm"], ["d"]).graph.nodes[0]
    assert isinstance(layer, GroupNorm)
    assert layer.groups == 1


@pytest.mark.parametrize("attributes", [{}, {"axis": 1}, {"axis": -1, "epsilon": 0.5}])
def test_layer_normalization_of_vectors(attributes: dict[str, Any], tmp_path: Path) -> None:
    nodes = [node("LayerNormalization", "x s b", "d", **attributes)]
    path = file(tmp_path / "m.onnx", nodes, {"s": random(9), "b": random(9)}, 9, (9,))
    layer = assert_reads(path, ["GroupNorm"], ["d"]).graph.nodes[0]
    assert layer.weight_names == ("s", "b")


@pytest.mark.parametrize(
    ("attributes", "outputs", "message"),
    [
        ({"axis": 1}, ["d"], "input 1 differs from pixel to pixel; use one scale and shift per channel"),
        ({}, ["d"], r"it normalizes a part of a sample of \(2, 5, 6\); normalize over channels and pixels"),
        ({"axis": 1}, ["d", "mean"], "the outputs of its statistics are not supported"),
        ({"axis": 1, "stash_type": 10}, ["d"], "stash_type = 10 is not supported"),
    ],
)
def test_other_layer_normalizations_are_refused(
    attributes: dict[str, Any], outputs: list[str], message: str, tmp_path: Path
) -> None:
    nodes = [helper.make_node("LayerNormalization", ["x", "s", "b"], outputs, name="norm", **attributes)]
    assert_refused(file(tmp_path / "m.onnx", nodes, {"s": random(*INPUT), "b": random(*INPUT)}, 60), message)


# --- samples of one row --------------------------------------------------------------------------------------


def test_one_dimensional_networks(tmp_path: Path) -> None:
    """All that follows from the shape of a sample does so from (C, L), as in the file."""
    nodes = [
        node("Conv", "x w wb", "c", pads=[1, 2], strides=[2], kernel_shape=[4]),
        node("BatchNormalization", "c s b m var", "n"),
        node("Relu", "n", "r"),
        node("MaxPool", "r", "p", kernel_shape=[3], strides=[1], auto_pad="SAME_LOWER"),
        node("Conv", "p w2", "c2", auto_pad="SAME_UPPER", dilations=[1], group=3),
        node("Add", "c2 b2", "a"),
        node("LayerNormalization", "a s3 b3", "l", axis=-2),
        node("Concat", "l p", "j", axis=1),
        node("Shape", "j", "sizes", end=1),
        node("Concat", "sizes rest", "target", axis=0),
        node("Reshape", "j target", "d"),
    ]
    constants = {
        **statistics(3),
        **{"w": random(3, 2, 4), "wb": random(3), "w2": random(3, 1, 2), "b2": random(3, 1)},
        **{"s3": per_channel(random(3), 6), "b3": random(1, 1), "rest": np.array([36], np.int64)},
    }
    path = file(tmp_path / "m.onnx", nodes, constants, 36, (2, 11))
    model = assert_runs_alike(path, batch=3)
    assert kinds(model) == ["Conv", "Relu", "MaxPool", "Conv", "GroupNorm", "Concat", "Flatten", "Flatten", "Gemm"]
    assert model.graph.input_shape == (2, 1, 11)
    save_model(model, tmp_path / "again.onnx")
    assert load_model(tmp_path / "again.onnx").graph.same_as(model.graph)
    assert_runs_alike(tmp_path / "again.onnx", batch=3)


def test_samples_of_two_dimensions_without_windows_stay_so(tmp_path: Path) -> None:
    path = file(tmp_path / "m.onnx", [node("Relu", "x", "d")], {}, 12, (3, 4))
    assert assert_runs_alike(path).graph.input_shape == (3, 4)


@pytest.mark.parametrize(
    ("window", "message"),
    [
        ({"kernel_shape": [1, 3]}, "kernel_shape has 2 values, expected 1"),
        ({"kernel_shape": [3], "pads": [1, 1, 1, 1]}, "pads has 4 values, expected 2"),
    ],
)
def test_windows_of_two_dimensions_do_not_fit_one_row(window: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert_refused(file(tmp_path / "m.onnx", [node("MaxPool", "x", "d", **window)], {}, 12, (3, 4)), message)


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 3, 1, 1)])
def test_weights_of_other_dimensions_do_not_fit_one_row(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = file(tmp_path / "m.onnx", [node("Conv", "x w", "d")], {"w": random(*shape)}, 12, (3, 4))
    with pytest.raises(ModelError):
        load_model(path)


# --- as torch.onnx.export writes them ------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore:Converting a tensor")
def test_a_network_of_pytorch(tmp_path: Path) -> None:
    """Inverted residuals as in MobileNetV2, with statistics of their own, exported as they were built."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU6())
            self.block = nn.Sequential(
                *(nn.Conv2d(4, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
                *(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU6()),
                *(nn.Conv2d(8, 4, 1, bias=False), nn.BatchNorm2d(4)),
            )
            self.norm, self.pool = nn.InstanceNorm2d(8, affine=True), nn.AdaptiveAvgPool2d(1)
            self.last = nn.Sequential(nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, WAYS))

        def forward(self, x: Any) -> Any:
            x = self.stem(x)
            return self.last(self.pool(self.norm(torch.cat([x, x + self.block(x)], 1)).relu()))

    torch.manual_seed(0)
    network = Network()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    path = exported(network, tmp_path / "m.onnx", True, training=torch.onnx.TrainingMode.PRESERVE)
    assert sum(node.op_type == "BatchNormalization" for node in onnx.load_model(path).graph.node) == 4
    model = assert_runs_alike(path, batch=2)
    block = ["Conv", "Clip", "Conv", "Clip", "Conv", "Add"]
    last = ["GroupNorm", "Relu", "GlobalAveragePool", "Flatten", "GroupNorm", "Gemm"]
    assert kinds(model) == ["Conv", "Clip", *block, "Concat", *last]
    # The exporter wrote one weight for the scales of both normalizations, as they are equal; each learns its own.
    scales = [node.weight_names[0] for node in model.graph.nodes if type(node).__name__ == "GroupNorm"]
    assert len({*scales}) == 2
