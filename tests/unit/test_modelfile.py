"""model.onnx: lossless, deterministic, runnable anywhere, and one clear line for every kind of damage."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ModelError, UnsupportedError
from pmeta.codegen.graph import frozen_float32
from pmeta.codegen.modelfile import RECORD_KEY, load_model, save_model
from pmeta.codegen.storage import Storage
from pmeta.host.simulator.sample_pass import decode
from pmeta.host.simulator.simulator import Simulator
from tests.models import as_pytorch, random_4conv, random_samples, with_storage
from tests.networks import random_network

pytestmark = pytest.mark.unit


@pytest.fixture
def model() -> Model:
    return random_4conv(1, width=4)


@pytest.fixture
def path(model: Model, tmp_path: Path) -> Path:
    save_model(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def assert_same(a: Model, b: Model) -> None:
    assert a.graph.same_as(b.graph)
    mine, theirs = a.adaptation, b.adaptation
    assert mine.alpha.tobytes() == theirs.alpha.tobytes()
    plain = {"alpha": None, "attention": {}, "alpha_in": {}, "alpha_out": {}}
    assert replace(mine, **{**plain, "alpha": theirs.alpha}) == replace(theirs, **{**plain, "alpha": theirs.alpha})
    assert mine.attention.keys() == theirs.attention.keys()
    for layer, attention in mine.attention.items():
        for direction in ("fw", "bw"):
            one, other = getattr(attention, direction), getattr(theirs.attention[layer], direction)
            assert (one is None) == (other is None)
            if one is not None:
                assert all(getattr(one, p).tobytes() == getattr(other, p).tobytes() for p in ("w1", "b1", "w2", "b2"))


@pytest.mark.parametrize("seed", range(10))
def test_round_trip_loses_nothing(seed: int, tmp_path: Path) -> None:
    model = random_network(seed)
    save_model(model, tmp_path / "one.onnx")
    loaded = load_model(tmp_path / "one.onnx")
    assert_same(model, loaded)
    save_model(loaded, tmp_path / "two.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_channel_wise_step_sizes_and_training_record_survive(model: Model, tmp_path: Path) -> None:
    table = {"conv2": frozen_float32([0.25, 0.5, 1, 2])}
    training = {"data": "icons", "seed": 3, "config": {"lambda": 0.1}}
    full = Model(model.graph, replace(model.adaptation, alpha_in=table, alpha_out=table, training=training))
    save_model(full, tmp_path / "model.onnx")
    loaded = load_model(tmp_path / "model.onnx").adaptation
    assert loaded.alpha_in["conv2"].tobytes() == table["conv2"].tobytes() == loaded.alpha_out["conv2"].tobytes()
    assert loaded.training == training


def test_onnxruntime_computes_the_same_logits(model: Model, path: Path) -> None:
    assert_runs_alike(model, path)


@pytest.mark.parametrize("seed", range(20))
def test_onnxruntime_computes_the_same_logits_of_random_networks(seed: int, tmp_path: Path) -> None:
    model = as_pytorch(random_network(seed))
    save_model(model, tmp_path / "model.onnx")
    assert_runs_alike(model, tmp_path / "model.onnx")


def test_storage_is_recorded_only_where_it_is_not_float32(model: Model, tmp_path: Path) -> None:
    plain, small = tmp_path / "plain.onnx", tmp_path / "small.onnx"
    save_model(model, plain)
    save_model(with_storage(model, Storage("int8", "float16")), small)
    assert b'"storage"' not in plain.read_bytes()
    assert load_model(small).adaptation.storage == Storage("int8", "float16")
    damaged = small.read_bytes().replace(b'"float16"', b'"float17"')
    small.write_bytes(damaged)
    with pytest.raises(ModelError, match="storage type 'float17' for maps; use one of: float32, float16"):
        load_model(small)


def assert_runs_alike(model: Model, path: Path) -> None:
    samples, _ = random_samples(model, 0, 5)
    decoded = np.stack([decode(sample, model.adaptation.encoding) for sample in samples])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    (logits,) = session.run(None, {model.graph.input: decoded})
    expected = np.stack([Simulator(model).predict(sample) for sample in samples])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * max(1, np.abs(expected).max()))


def edited(path: Path, change: Callable[[onnx.ModelProto], None]) -> Path:
    proto = onnx.load_model(path)
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def set_record(proto: onnx.ModelProto, **fields: object) -> None:
    record = json.loads(next(entry.value for entry in proto.metadata_props if entry.key == RECORD_KEY))
    record.update(fields)
    helper.set_model_props(proto, {RECORD_KEY: json.dumps(record)})


def encoding(scale: float) -> dict[str, object]:
    return {"encoding": "uint8", "scale": [scale], "offset": [0]}


def rename_operator(proto: onnx.ModelProto) -> None:
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type = "Softplus"


def external_weights(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")


def negative_step_size(proto: onnx.ModelProto) -> None:
    for index, tensor in enumerate(proto.graph.initializer):
        if tensor.name == "pmeta.alpha":
            array = numpy_helper.to_array(tensor).copy()
            array[0, 0] = -1
            proto.graph.initializer[index].CopyFrom(numpy_helper.from_array(array, tensor.name))


def channel_step_sizes(*values: float) -> Callable[[onnx.ModelProto], None]:
    """Adds α^Ch for the input channels of conv2, which has four."""

    def add(proto: onnx.ModelProto) -> None:
        array = np.array(values, np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, "pmeta.alpha_in.conv2"))

    return add


def dead_end(proto: onnx.ModelProto) -> None:
    read, written = proto.graph.node[2].output[0], "dead"
    proto.graph.node.insert(3, onnx.helper.make_node("Relu", [read], [written], name="extra"))


def set_weight(proto: onnx.ModelProto, name: str, array: npt.ArrayLike) -> None:
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, np.float32), name))


def set_attribute(proto: onnx.ModelProto, operator: str, **values: object) -> None:
    """Set attributes of the first node of that kind."""
    node = next(node for node in proto.graph.node if node.op_type == operator)
    for attribute in [attribute for attribute in node.attribute if attribute.name in values]:
        node.attribute.remove(attribute)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in values.items())


def set_input(proto: onnx.ModelProto, *shape: int) -> None:
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape]))
    proto.graph.node[0].input[0] = "x"


def own_relu(proto: onnx.ModelProto) -> None:
    body = [helper.make_node("Sigmoid", ["x"], ["y"])]
    proto.functions.append(helper.make_function("", "Relu", ["x"], ["y"], body, [helper.make_opsetid("", 21)]))


def many_nodes(proto: onnx.ModelProto) -> None:
    first = proto.graph.input[0].name
    names = [first, *(f"relu{n}.x" for n in range(300 - len(proto.graph.node) + 1))]
    nodes = [helper.make_node("Relu", [one], [other], name=other) for one, other in itertools.pairwise(names)]
    proto.graph.node[0].input[0] = names[-1]
    old = list(proto.graph.node)
    proto.graph.ClearField("node")
    proto.graph.node.extend([*nodes, *old])


GIANT = 10**9


DAMAGE: list[tuple[Callable[[onnx.ModelProto], None], type[ModelError], str]] = [
    (rename_operator, UnsupportedError, "node 'relu1' .Softplus.: the operator is not supported; use only Add, "),
    (external_weights, UnsupportedError, "keeps weights in other files"),
    (negative_step_size, ModelError, "step sizes must be finite and >= 0"),
    (channel_step_sizes(1, 1, 1), ModelError, "step sizes per channel of 'conv2' must be 4 finite float32"),
    (channel_step_sizes(1, 1, 1, np.inf), ModelError, "weight 'pmeta.alpha_in.conv2' has NaN or infinite values"),
    (channel_step_sizes(1, 1, 1, -1), ModelError, "step sizes per channel of 'conv2' must be >= 0"),
    (dead_end, ModelError, "node 'extra': nothing reads its output 'dead'"),
    (lambda proto: helper.set_model_props(proto, {"other": "x"}), ModelError, "has no adaptation record"),
    (lambda proto: helper.set_model_props(proto, {RECORD_KEY: "{"}), ModelError, "adaptation record: is damaged"),
    (lambda proto: set_record(proto, schema=99), ModelError, "has schema 99, expected 1"),
    (lambda proto: set_record(proto, steps=7), ModelError, "says 7 steps, pmeta.alpha has 3"),
    (lambda proto: set_record(proto, layers=["a"]), ModelError, "names the layers"),
    (lambda proto: set_record(proto, update=[["all"]] * 9), ModelError, "a layer may update 'weight' and 'bias' only"),
    (lambda proto: set_record(proto, ways="many"), ModelError, "is damaged"),
    (lambda proto: set_record(proto, ways=6), ModelError, "the record says 6 ways"),
    (lambda proto: set_record(proto, input={"encoding": "uint8"}), ModelError, "lacks 'scale'"),
    (lambda proto: setattr(proto.opset_import[0], "version", 17), ModelError, "is not valid ONNX|opset 17"),
    (lambda proto: proto.graph.ClearField("node"), ModelError, "is not valid ONNX|no nodes"),
    (own_relu, UnsupportedError, "defines functions of its own"),
    (lambda proto: set_weight(proto, "fc1.bias", [np.nan] * 5), ModelError, "'fc1.bias' has NaN or infinite values"),
    (lambda proto: set_weight(proto, "fc1.weight", 1.0), UnsupportedError, "input 1 is a single number"),
    (lambda proto: set_weight(proto, "pmeta.att.conv2.fw.b1", 1.0), ModelError, "attention shapes .* do not belong"),
    (lambda proto: set_attribute(proto, "GroupNormalization", epsilon=-1.0), UnsupportedError, "epsilon is -1.0"),
    (lambda proto: set_attribute(proto, "Conv", pads=[GIANT] * 4), ModelError, "no number of it may exceed 32768"),
    (lambda proto: set_attribute(proto, "Conv", pads=[9999] * 4), UnsupportedError, "the output of node 'conv1' has"),
    (
        lambda proto: set_attribute(proto, "MaxPool", pads=[20_000] * 4, kernel_shape=[20_001] * 2),
        UnsupportedError,
        "the output of node 'pool1' has",
    ),
    (lambda proto: set_input(proto, 1, GIANT, GIANT), UnsupportedError, "the input has 1,000,000,000,000,000,000 elem"),
    (lambda proto: set_weight(proto, "pmeta.alpha", np.ones((9, 65))), ModelError, "has 65 steps, at most 64"),
    (many_nodes, UnsupportedError, "the graph has 301 nodes, at most 256 are possible"),
    (lambda proto: set_record(proto, ways=float("inf")), ModelError, "'ways' is inf, expected an integer"),
    (lambda proto: set_record(proto, steps=3.0), ModelError, "'steps' is 3.0, expected an integer"),
    (lambda proto: set_record(proto, class_names="abc"), ModelError, "'class_names' is 'abc', expected a list"),
    (lambda proto: helper.set_model_props(proto, {RECORD_KEY: "[" * 100_000}), ModelError, "is damaged"),
    *(
        (lambda proto, value=value: set_record(proto, input=encoding(value)), ModelError, message)
        for value, message in (
            (float("nan"), "must be finite"),
            (1e300, "must be finite"),
            (10**400, "is damaged"),
        )
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), DAMAGE)
def test_damage_is_named(
    change: Callable[[onnx.ModelProto], None], error: type[ModelError], message: str, path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        load_model(edited(path, change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 100, b"\x08\x09"])
def test_what_is_no_onnx_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx: is not"):
        load_model(path)


@pytest.mark.parametrize("old", [b"pool1.y", b"fc1.weight", b"conv2", b"strides", b"Relu"])
def test_names_that_are_not_utf8_are_refused(old: bytes, path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(old, b"\xff" + old[1:]))
    with pytest.raises(ModelError, match=r"is not valid ONNX|is not UTF-8"):
        load_model(path)


def test_devices_and_pipes_are_not_read(tmp_path: Path) -> None:
    """A pipe that nobody writes to would wait for ever, /dev/zero never ends."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ModelError, match=r"cannot be read .not a regular file.; check the path"):
            load_model(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "nothing.onnx")


def test_every_truncation_is_refused(path: Path) -> None:
    """A file cut anywhere gives a ModelError, never another exception."""
    data = path.read_bytes()
    for length in range(0, len(data), 997):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            load_model(path)
