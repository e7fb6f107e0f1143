"""Files as other exporters write them: constants in nodes, computed shapes, and nodes that change nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ModelError, UnsupportedError
from pmeta.codegen.modelfile import OLDEST_OPSET, RECORD_KEY, load_model, save_model
from pmeta.codegen.operators import OPERATORS, Clip, Flatten
from pmeta.host.simulator.simulator import Simulator

pytestmark = pytest.mark.unit

WAYS = 5
LAYERS = ("Conv", "Gemm", "InstanceNormalization", "LayerNormalization", "MatMul")


# --- files ---------------------------------------------------------------------------------------------------


def with_record(proto: onnx.ModelProto, path: Path) -> Path:
    """Write the file with step sizes and a record, as it needs to be read; the input is a float32."""
    layers = [node.name for node in proto.graph.node if node.op_type in LAYERS]
    record = {
        **{"schema": 1, "method": "test", "ways": WAYS, "shots": 1, "steps": 1, "rho_fw": 0, "rho_bw": 0},
        **{"loss": "softmax_cross_entropy", "sample_batch": 1, "layers": layers, "update": [["weight"]] * len(layers)},
        **{"input": {"encoding": "float32", "scale": [], "offset": []}, "class_names": [], "training": {}},
    }
    alpha = np.full((len(layers), 1), 0.1, np.float32)
    proto.graph.initializer.append(numpy_helper.from_array(alpha, "pmeta.alpha"))
    helper.set_model_props(proto, {RECORD_KEY: json.dumps(record)})
    path.write_bytes(proto.SerializeToString())
    return path


def head(
    nodes: Sequence[onnx.NodeProto],
    path: Path,
    constants: dict[str, Any] | None = None,
    input_shape: Sequence[str | int] = ("N", 2, 3, 3),
) -> Path:
    """`nodes` lead from "x" to "f", a vector of 18, before a fully connected layer."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(WAYS, 18)).astype(np.float32), **(constants or {})}
    gemm = helper.make_node("Gemm", ["f", "w"], ["y"], name="fc", transB=1)
    graph = helper.make_graph(
        [*nodes, gemm],
        "head",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [input_shape[0], WAYS])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return with_record(proto, path)


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=output, **attributes)


def kinds(model: Model) -> list[str]:
    return [type(node).__name__ for node in model.graph.nodes]


def assert_runs_alike(path: Path, batch: int = 1) -> Model:
    """onnxruntime computes from the file what the simulator computes from the model that was read."""
    model = load_model(path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    x = np.random.default_rng(1).normal(size=(batch, *model.graph.input_shape)).astype(np.float32)
    of_file = session.get_inputs()[0].shape[1:]  # a (C, L) sample is a map of one row in the graph
    (logits,) = session.run(None, {model.graph.input: x.reshape(batch, *of_file)})
    expected = np.stack([Simulator(model).predict(sample) for sample in x])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    return model


RELU = node("Relu", "x", "r")
FLATTEN = node("Flatten", "d", "f", axis=1)
INT = np.int64


# --- nodes that are left out ---------------------------------------------------------------------------------


def test_identity(tmp_path: Path) -> None:
    path = head([node("Identity", "x", "i"), node("Identity", "i", "d"), FLATTEN], tmp_path / "m.onnx")
    model = assert_runs_alike(path)
    assert kinds(model) == ["Flatten", "Gemm"]
    assert model.graph.nodes[0].input == "x"


def test_identity_at_the_end(tmp_path: Path) -> None:
    path = head([node("Identity", "x", "d"), FLATTEN], tmp_path / "m.onnx")
    proto = onnx.load_model(path)
    proto.graph.node.append(node("Identity", "y", "logits"))
    proto.graph.output[0].name = "logits"
    path.write_bytes(proto.SerializeToString())
    model = assert_runs_alike(path)
    assert model.graph.output == "y"


def test_identity_of_a_weight(tmp_path: Path) -> None:
    path = head([node("Flatten", "x", "f", axis=1)], tmp_path / "m.onnx")
    proto = onnx.load_model(path)
    proto.graph.node.insert(0, node("Identity", "w", "same"))
    proto.graph.node[-1].input[1] = "same"
    path.write_bytes(proto.SerializeToString())
    assert assert_runs_alike(path).graph.layers[0].weight_names == ("w",)


@pytest.mark.parametrize("inputs", ["x", "x ratio", "x ratio training"])
def test_dropout_that_does_not_train(inputs: str, tmp_path: Path) -> None:
    constants = {"ratio": np.float32(0.5), "training": np.bool_(False)}
    path = head([node("Dropout", inputs, "d"), FLATTEN], tmp_path / "m.onnx", constants)
    assert kinds(assert_runs_alike(path)) == ["Flatten", "Gemm"]


def test_dropout_that_trains_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["training"], value=numpy_helper.from_array(np.bool_(True))),
        node("Dropout", "x ratio training", "d"),
        FLATTEN,
    ]
    path = head(nodes, tmp_path / "m.onnx", {"ratio": np.float32(0.5)})
    with pytest.raises(UnsupportedError, match=r"node 'd' \(Dropout\): it drops elements, as in training; export"):
        load_model(path)


@pytest.mark.parametrize(
    "target", [(0, 18), (-1, 18), (0, -1), (1, -1), (1, 18), (0, 2, 3, 3), (-1, 2, 3, 3), (0, 0, 3, -1)]
)
def test_reshape_that_moves_nothing(target: tuple[int, ...], tmp_path: Path) -> None:
    flattens = len(target) == 2
    nodes = [node("Reshape", "x shape", "f" if flattens else "d")] + [FLATTEN] * (not flattens)
    path = head(nodes, tmp_path / "m.onnx", {"shape": np.array(target, INT)})
    model = assert_runs_alike(path)
    assert kinds(model) == ["Flatten", "Gemm"]
    assert isinstance(model.graph.nodes[0], Flatten)


@pytest.mark.parametrize("target", [(8, 18), (8, -1), (0, 18), (-1, 18)])
def test_reshape_in_a_file_made_for_several_samples(target: tuple[int, ...], tmp_path: Path) -> None:
    nodes = [node("Reshape", "x shape", "f")]
    path = head(nodes, tmp_path / "m.onnx", {"shape": np.array(target, INT)}, (8, 2, 3, 3))
    assert kinds(assert_runs_alike(path, batch=8)) == ["Flatten", "Gemm"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            (-1, 9),
            r"node 'f' \(Reshape\): the shape \[-1, 9\] does not fit a sample of \(2, 3, 3\); keep samples apart",
        ),
        ((2, 9), r"the shape \[2, 9\] mixes samples"),
        ((0, 2, 9), r"turns a sample of \(2, 3, 3\) into one of \(2, 9\); only a Flatten"),
        ((0, -1, -1), "does not fit"),
        ((0, 4, -1), "does not fit"),
        ((0, 0, 0, 0, 0), "does not fit"),
        ((0, -18), "does not fit"),
        ((0,), "does not fit"),
        ((), "mixes samples"),
        ((0,) * 65, "no constant list of sizes"),
        ((0.0, 18.0), "no constant list of sizes"),
    ],
)
def test_reshape_that_is_no_flatten_is_refused(target: tuple[int, ...], message: str, tmp_path: Path) -> None:
    shape = np.array(target, np.float32 if any(isinstance(size, float) for size in target) else INT)
    path = head([node("Relu", "x", "r"), node("Reshape", "r shape", "f")], tmp_path / "m.onnx", {"shape": shape})
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_reshape_by_an_activation_is_refused(tmp_path: Path) -> None:
    path = head([node("Reshape", "x x", "f")], tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"input 1 is no constant list of sizes|is not valid ONNX"):
        load_model(path)


def test_an_empty_reshape_is_refused(tmp_path: Path) -> None:
    path = head([node("Reshape", "x s", "f", allowzero=1)], tmp_path / "m.onnx", {"s": np.array([0, 18], INT)})
    with pytest.raises(UnsupportedError, match=r"the shape \[0, 18\] is empty"):
        load_model(path)


@pytest.mark.parametrize(("shape", "perm"), [((2, 3, 3), (0, 1, 2, 3)), ((1, 18, 1), (0, 3, 2, 1)), ((18,), (0, 1))])
def test_transpose_that_moves_nothing(shape: tuple[int, ...], perm: tuple[int, ...], tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", "d", perm=perm), FLATTEN]
    path = head(nodes, tmp_path / "m.onnx", input_shape=("N", *shape))
    assert kinds(assert_runs_alike(path)) == ["Flatten", "Gemm"]


@pytest.mark.parametrize(
    ("perm", "message"),
    [
        ((0, 1, 3, 2), r"perm = \[0, 1, 3, 2\] moves elements of a sample of \(2, 3, 3\)"),
        ((1, 0, 2, 3), "moves elements"),
        (None, "moves elements"),
    ],
)
def test_transpose_that_moves_elements_is_refused(perm: tuple[int, ...] | None, message: str, tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", "d", **({} if perm is None else {"perm": perm})), FLATTEN]
    with pytest.raises(UnsupportedError, match=message):
        load_model(head(nodes, tmp_path / "m.onnx"))


def test_transpose_of_one_pixel(tmp_path: Path) -> None:
    nodes = [node("Transpose", "x", "d", perm=(0, 2, 3, 1)), FLATTEN]
    path = head(nodes, tmp_path / "m.onnx", input_shape=("N", 18, 1, 1))
    assert kinds(assert_runs_alike(path)) == ["Flatten", "Gemm"]


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ([node("Squeeze", "x axes", "f")], (18, 1, 1)),  # axes 2 and 3
        ([node("Unsqueeze", "x axes", "u"), node("Flatten", "u", "f", axis=1)], (18,)),
        (
            [node("Relu", "x", "r"), node("Unsqueeze", "r axes", "u"), node("Squeeze", "u axes", "d"), FLATTEN],
            (2, 3, 3),
        ),
        ([node("Unsqueeze", "x axes", "u"), node("Relu", "u", "d"), FLATTEN], (18,)),  # a sample of (18, 1, 1)
        ([node("Cast", "x", "d", to=TensorProto.FLOAT), FLATTEN], (2, 3, 3)),
        ([node("Reshape", "x as_rows", "r"), node("Reshape", "r as_map", "d"), FLATTEN], (2, 3, 3)),
    ],
)
def test_shapes_on_the_way(nodes: list[onnx.NodeProto], shape: tuple[int, ...], tmp_path: Path) -> None:
    """Any, as long as what computes with it sees a map or a vector."""
    constants = {"axes": np.array([2, -1]), "as_rows": np.array([0, 3, 6]), "as_map": np.array([-1, 2, 3, 3])}
    model = assert_runs_alike(head(nodes, tmp_path / "m.onnx", constants, ("N", *shape)))
    assert kinds(model)[-1] == "Gemm" and set(kinds(model)[:-1]) <= {"Relu", "Flatten"}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Squeeze", "x", "d"), FLATTEN], "squeezes all dimensions, the samples' too"),
        ([node("Squeeze", "x one", "d"), FLATTEN], r"squeezes axes \[1\] of a sample|is not valid ONNX"),
        ([node("Unsqueeze", "x zero", "d"), FLATTEN], r"the axes \[0\] do not fit a sample; leave the first"),
        ([node("Unsqueeze", "x twice", "d"), FLATTEN], r"do not fit a sample|is not valid ONNX"),
        ([node("Cast", "x", "d", to=TensorProto.FLOAT16), FLATTEN], "it casts to another type than float32"),
        (
            [RELU, node("Unsqueeze", "r one", "u"), node("Relu", "u", "d"), FLATTEN],
            "turns a sample of",
        ),
        ([node("ReduceMean", "x one", "d"), FLATTEN], r"it reduces axes \[1\] of a sample of \(2, 3, 3\); reduce all"),
        ([node("ReduceMean", "x three", "d"), FLATTEN], r"it reduces axes \[3\] of a sample"),
        ([node("ReduceMean", "x", "d"), FLATTEN], "it reduces all axes, the samples' too"),
        ([node("Flatten", "x", "v"), node("ReduceMax", "v one", "d"), FLATTEN], "it reduces a vector of 18"),
        ([node("Mul", "x x", "d"), FLATTEN], "it joins two activations; only a constant"),
        (
            [node("Celu", "x", "d"), FLATTEN],
            r"node 'd' \(Celu\): the operator is not supported; use only Add, AveragePool",
        ),
    ],
)
def test_what_is_no_shape_of_the_graph_is_refused(nodes: list[onnx.NodeProto], message: str, tmp_path: Path) -> None:
    constants = {
        name: np.array(axes) for name, axes in (("zero", [0]), ("one", [1]), ("three", [3]), ("twice", [1, 1]))
    }
    with pytest.raises(ModelError, match=message) as caught:
        load_model(head(nodes, tmp_path / "m.onnx", constants))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(("op_type", "kind"), [("ReduceMean", "GlobalAveragePool"), ("ReduceMax", "MaxPool")])
def test_reductions_over_all_pixels(op_type: str, kind: str, keepdims: int, tmp_path: Path) -> None:
    last = "f" if not keepdims else "d"
    nodes = [node(op_type, "x axes", last, keepdims=keepdims)] + [FLATTEN] * keepdims
    path = head(nodes, tmp_path / "m.onnx", {"axes": np.array([-1, 2])}, ("N", 18, 4, 3))
    assert kinds(assert_runs_alike(path, batch=3)) == [kind, "Flatten", "Gemm"]


def test_the_maximum_of_a_map(tmp_path: Path) -> None:
    path = head([node("GlobalMaxPool", "x", "d"), FLATTEN], tmp_path / "m.onnx", input_shape=("N", 18, 4, 3))
    assert kinds(assert_runs_alike(path)) == ["MaxPool", "Flatten", "Gemm"]


def test_a_shape_at_the_end(tmp_path: Path) -> None:
    """The logits may be a reshaped map."""
    path = head([node("Flatten", "x", "f", axis=1)], tmp_path / "m.onnx")
    proto = onnx.load_model(path)
    proto.graph.node.extend([node("Unsqueeze", "y last", "u"), node("Squeeze", "u last", "logits")])
    proto.graph.initializer.append(numpy_helper.from_array(np.array([2]), "last"))
    proto.graph.output[0].name = "logits"
    path.write_bytes(proto.SerializeToString())
    assert assert_runs_alike(path).graph.output == "y"


def test_what_reads_no_activation_is_refused(tmp_path: Path) -> None:
    for op_type in ("Reshape", "Shape"):
        inputs = "w s" if op_type == "Reshape" else "w"
        path = head([node(op_type, inputs, "f")], tmp_path / "m.onnx", {"s": np.array([0, 18], INT)})
        with pytest.raises(ModelError, match=r"it reads no activation|is not valid ONNX"):
            load_model(path)


# --- constants -----------------------------------------------------------------------------------------------


def test_weights_in_constant_nodes(tmp_path: Path) -> None:
    path = head([node("Flatten", "x", "f", axis=1)], tmp_path / "m.onnx")
    proto = onnx.load_model(path)
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "w")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    proto.graph.initializer.remove(weight)
    path.write_bytes(proto.SerializeToString())
    model = assert_runs_alike(path)
    assert model.graph.weights["w"].shape == (WAYS, 18)
    save_model(model, tmp_path / "again.onnx")
    assert load_model(tmp_path / "again.onnx").graph.same_as(model.graph)


@pytest.mark.parametrize("value", [{"value_ints": [0, 18]}, {"value": numpy_helper.from_array(np.array([0, 18]))}])
def test_sizes_in_constant_nodes(value: dict[str, Any], tmp_path: Path) -> None:
    nodes = [helper.make_node("Constant", [], ["s"], **value), node("Reshape", "x s", "f")]
    assert kinds(assert_runs_alike(head(nodes, tmp_path / "m.onnx"))) == ["Flatten", "Gemm"]


def test_constants_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Constant", [], ["s"], value_string="x"), node("Reshape", "x s", "f")]
    with pytest.raises(ModelError, match=r"its value is not a tensor of numbers|is not valid ONNX"):
        load_model(head(nodes, tmp_path / "m.onnx"))


def test_constants_in_other_files_are_refused(tmp_path: Path) -> None:
    tensor = TensorProto(name="s", data_type=TensorProto.INT64, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/hostname")
    nodes = [helper.make_node("Constant", [], ["s"], value=tensor), node("Reshape", "x s", "f")]
    with pytest.raises(ModelError, match="keeps weights in other files"):
        load_model(head(nodes, tmp_path / "m.onnx"))


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64])
def test_weights_of_other_types_are_refused(kind: type[np.generic], tmp_path: Path) -> None:
    constants = {"w": np.zeros((WAYS, 18), kind)}
    path = head([node("Flatten", "x", "f", axis=1)], tmp_path / "m.onnx", constants)
    message = rf"weight 'w' is {np.dtype(kind)} \(5, 18\), expected float32"
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_old_files(tmp_path: Path) -> None:
    path = head([node("Flatten", "x", "f", axis=1)], tmp_path / "m.onnx")
    proto = onnx.load_model(path)
    for version in (OLDEST_OPSET, OLDEST_OPSET - 1):
        proto.opset_import[0].version = version
        path.write_bytes(proto.SerializeToString())
        if version >= OLDEST_OPSET:
            assert_runs_alike(path)
        else:
            with pytest.raises(UnsupportedError, match=f"uses opset {version}, pmeta needs {OLDEST_OPSET} or later"):
                load_model(path)


# --- as torch.onnx.export writes them ------------------------------------------------------------------------


def exported(network: Any, path: Path, dynamic: bool, **options: Any) -> Path:
    """`network` for samples of (1, 6, 6), exported for one sample or for any number of them."""
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.onnx.export(
        network.eval(),
        torch.zeros(1, 1, 6, 6),
        file,
        dynamo=False,  # the tracing exporter, which needs no further package
        opset_version=20,  # its newest
        input_names=["input"],
        dynamic_axes={"input": {0: "N"}} if dynamic else None,
        **options,
    )
    return with_record(onnx.load_model_from_string(file.getvalue()), path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("flatten", "dynamic"),
    [("flatten", True), ("Flatten", False), ("view", True), ("reshape", False), ("reshape", True), ("size", True)],
)
def test_flattening_in_pytorch(flatten: str, dynamic: bool, tmp_path: Path) -> None:
    """The usual ways to write it; the last ones export computed shapes."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    ways: dict[str, Any] = {
        "flatten": lambda x: torch.flatten(x, 1),
        "Flatten": nn.Flatten(),
        "view": lambda x: x.view(-1, 36),
        "reshape": lambda x: x.reshape(x.shape[0], -1),
        "size": lambda x: x.view(x.size(0), 4 * 3 * 3),
    }

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.Identity(), nn.ReLU(), nn.Dropout2d(), nn.MaxPool2d(2)
            )
            self.drop, self.last = nn.Dropout(), nn.Linear(36, WAYS)

        def forward(self, x: Any) -> Any:
            return self.last(self.drop(ways[flatten](self.features(x))))

    torch.manual_seed(0)
    model = assert_runs_alike(exported(Network(), tmp_path / "m.onnx", dynamic))
    assert kinds(model) == ["Conv", "Relu", "MaxPool", "Flatten", "Gemm"]
    assert set(kinds(model)) <= set(OPERATORS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:It is recommended that constant folding")
@pytest.mark.parametrize("training", [False, True])
def test_activations_and_averages_in_pytorch(training: bool, tmp_path: Path) -> None:
    """The trained form of a Dropout is exported only where PyTorch is asked to keep it."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    network = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU6(), nn.AvgPool2d(2, padding=1), nn.Dropout()),
        *(nn.Conv2d(4, 6, 3), nn.Hardswish(), nn.AvgPool2d(2, 1, count_include_pad=False), nn.Hardtanh(-0.4, 0.3)),
        *(nn.Sigmoid(), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, WAYS)),
    )
    torch.manual_seed(0)
    if training:
        path = exported(network, tmp_path / "m.onnx", True, training=torch.onnx.TrainingMode.TRAINING)
        with pytest.raises(UnsupportedError, match=r"Dropout.*it drops elements, as in training"):
            load_model(path)
        return
    model = assert_runs_alike(exported(network, tmp_path / "m.onnx", True))
    assert kinds(model) == [
        *("Conv", "Clip", "AveragePool", "Conv", "HardSwish", "AveragePool", "Clip"),
        *("Sigmoid", "Tanh", "GlobalAveragePool", "Flatten", "Gemm"),
    ]
    assert [(node.min, node.max) for node in model.graph.nodes if isinstance(node, Clip)] == [
        (0.0, 6.0),
        (float(np.float32(-0.4)), float(np.float32(0.3))),
    ]
