"""model.onnx: reading and writing, without loss.

The file is valid ONNX that any runtime executes. What adaptation needs rides along as initializers named
`pmeta.alpha`, `pmeta.alpha_in.<layer>`, `pmeta.alpha_out.<layer>`, `pmeta.att.<layer>.{fw,bw}.{w1,b1,w2,b2}`, and
one JSON record under the key `pmeta` in `metadata_props`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, helper, numpy_helper

from pmeta.codegen.adaptation import (
    SCHEMA_VERSION,
    Adaptation,
    AttentionModule,
    InputEncoding,
    LayerAttention,
    Model,
)
from pmeta.codegen.errors import ModelError, UnsupportedError
from pmeta.codegen.files import read_file, replacement
from pmeta.codegen.graph import Float32Array, Graph, Shape
from pmeta.codegen.onnx_constants import tensor_value
from pmeta.codegen.onnx_graph import NodeReader
from pmeta.codegen.onnx_node import Constant
from pmeta.codegen.onnx_rewrites import WINDOWS
from pmeta.codegen.storage import Storage

OPSET = 21  # that is written: the first whose GroupNormalization has one scale per channel
OLDEST_OPSET = 17  # that is read: from here on all other operators mean the same
IR_VERSION = 10
MAX_FILE_BYTES = 512 * 1024 * 1024
RECORD_KEY = "pmeta"
PREFIX = "pmeta."
ATTENTION_PARTS = ("w1", "b1", "w2", "b2")


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of the model file: how firmware, manifest and host tool name a model."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def model_bytes(model: Model) -> bytes:
    """The file of `model`: the same model gives the same bytes."""
    data: bytes = _to_proto(model).SerializeToString(deterministic=True)
    return data


def save_model(model: Model, path: Path) -> None:
    """Write `model_bytes` to `path`. Replaces the file in one step."""
    data = model_bytes(model)
    try:
        with replacement(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise ModelError(f"cannot be written ({error.strerror})", str(path), "choose a writable place") from error


def load_model(path: Path) -> Model:
    """Read a model with its adaptation record; raises ModelError or UnsupportedError."""
    proto = _read_proto(path)
    record_text = _record_text(proto)
    if record_text is None:
        todo = "export it with pmeta-train, or give pmeta-gen --update, --alpha and --steps"
        raise ModelError("has no adaptation record", str(path), todo)
    constants = _constants(proto, path)
    graph = _graph_from_proto(proto, constants, path)
    float32 = {name: array for name, array in constants.items() if array.dtype == np.float32}
    return Model(graph, _adaptation_from(record_text, graph, float32, path))


def load_network(path: Path) -> Graph:
    """Read a network that has no adaptation record; raises ModelError or UnsupportedError."""
    proto = _read_proto(path)
    if _record_text(proto) is not None:
        todo = "leave out --update, --alpha, --steps, --head and the like"
        raise ModelError("has an adaptation record, which says how it adapts", str(path), todo)
    return _graph_from_proto(proto, _constants(proto, path), path)


def load_graph(path: Path) -> Graph:
    """Read a network, whether it has an adaptation record or not; raises ModelError or UnsupportedError."""
    return network_of(_read_proto(path), path)


def network_of(proto: onnx.ModelProto, path: Path) -> Graph:
    """The network of an ONNX model in memory; `path` names it in errors. Raises ModelError or UnsupportedError."""
    return _graph_from_proto(proto, _constants(proto, path), path)


def _record_text(proto: onnx.ModelProto) -> str | None:
    return {entry.key: entry.value for entry in proto.metadata_props}.get(RECORD_KEY)


def _constants(proto: onnx.ModelProto, path: Path) -> dict[str, Constant]:
    return {tensor.name: tensor_value(tensor, str(path)) for tensor in proto.graph.initializer}


# --- writing -------------------------------------------------------------------------------------------------


def _to_proto(model: Model) -> onnx.ModelProto:
    graph = model.graph
    nodes = [node.to_onnx() for node in graph.nodes]
    arrays: dict[str, Constant] = {**graph.weights}
    for node in nodes:
        arrays.update(node.constants)
    arrays.update(_adaptation_arrays(model.adaptation))
    proto = helper.make_graph(
        [helper.make_node(n.op_type, n.inputs, n.outputs, name=n.name, **n.attributes) for n in nodes],
        graph.name,
        [helper.make_tensor_value_info(graph.input, TensorProto.FLOAT, ["N", *graph.input_shape])],
        [helper.make_tensor_value_info(graph.output, TensorProto.FLOAT, ["N", *graph.output_shape])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    result = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="pmeta", ir_version=IR_VERSION
    )
    helper.set_model_props(result, {RECORD_KEY: _record_json(model)})
    return result


def _adaptation_arrays(adaptation: Adaptation) -> dict[str, Float32Array]:
    arrays: dict[str, Float32Array] = {PREFIX + "alpha": adaptation.alpha}
    for kind, table in (("alpha_in", adaptation.alpha_in), ("alpha_out", adaptation.alpha_out)):
        arrays.update({f"{PREFIX}{kind}.{layer}": array for layer, array in sorted(table.items())})
    for layer, attention in sorted(adaptation.attention.items()):
        for direction, module in (("fw", attention.fw), ("bw", attention.bw)):
            if module is not None:
                for part in ATTENTION_PARTS:
                    arrays[f"{PREFIX}att.{layer}.{direction}.{part}"] = getattr(module, part)
    return arrays


def _record_json(model: Model) -> str:
    adaptation = model.adaptation
    record = {
        "schema": SCHEMA_VERSION,
        "method": adaptation.method,
        "ways": adaptation.ways,
        "shots": adaptation.shots,
        "steps": adaptation.steps,
        "rho_fw": adaptation.rho_fw,
        "rho_bw": adaptation.rho_bw,
        "loss": adaptation.loss,
        "sample_batch": adaptation.sample_batch,
        "layers": [layer.name for layer in model.graph.layers],
        "update": [list(parts) for parts in adaptation.updates],
        "input": {
            "encoding": adaptation.encoding.kind,
            "scale": list(adaptation.encoding.scale),
            "offset": list(adaptation.encoding.offset),
        },
        "class_names": list(adaptation.class_names),
        "training": dict(adaptation.training),
    }
    if adaptation.storage != Storage():
        record["storage"] = dataclasses.asdict(adaptation.storage)
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)


# --- reading -------------------------------------------------------------------------------------------------


def _read_proto(path: Path) -> onnx.ModelProto:
    try:
        data = read_file(path, MAX_FILE_BYTES)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", str(path), "check the path") from error
    try:
        proto = onnx.load_model_from_string(data)
        if not _is_text(proto):
            raise ModelError("has a name that is not UTF-8", str(path), "export it again")
        # What lies in other files must not be read: the checker would follow such paths.
        constants = [attribute.t for node in proto.graph.node for attribute in node.attribute]
        if any(tensor.data_location == TensorProto.EXTERNAL for tensor in (*proto.graph.initializer, *constants)):
            todo = "save it as one file (torch.onnx.export: external_data=False)"
            raise UnsupportedError("keeps weights in other files", str(path), todo)
        onnx.checker.check_model(proto)
    except DecodeError as error:
        raise ModelError(
            "is not an ONNX file", str(path), "pass the model.onnx of pmeta-train or another exporter"
        ) from error
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:  # the latter where it cites no UTF-8
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"is not valid ONNX ({reason})", str(path), "export it again") from error
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    normalizes = any(node.op_type == "GroupNormalization" for node in proto.graph.node)
    oldest = OPSET if normalizes else OLDEST_OPSET
    if opset < oldest:
        what = f"uses opset {opset}, {'GroupNormalization' if normalizes else 'pmeta'} needs {oldest} or later"
        raise UnsupportedError(what, str(path), "export with a newer opset")
    if proto.functions:
        raise UnsupportedError("defines functions of its own", str(path), "export plain operators")
    return proto


def _is_text(message: Message) -> bool:
    """Whether every string in a protobuf message is UTF-8; others come as bytes, where names are expected."""
    for descriptor, value in message.ListFields():
        values = value if descriptor.is_repeated else (value,)
        if descriptor.type == FieldDescriptor.TYPE_STRING and any(isinstance(text, bytes) for text in values):
            return False
        if descriptor.type == FieldDescriptor.TYPE_MESSAGE and not all(_is_text(part) for part in values):
            return False
    return True


def _graph_from_proto(proto: onnx.ModelProto, constants: Mapping[str, Constant], path: Path) -> Graph:
    inputs = [value for value in proto.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(proto.graph.output) != 1:
        raise UnsupportedError("needs exactly one input and one output", str(path), "export a plain classifier")
    batch, shape = _input_shape(inputs[0], path)
    one_row = len(shape) == 2 and any(node.op_type in WINDOWS for node in proto.graph.node)
    if one_row:
        shape = (shape[0], 1, shape[1])
    reader = NodeReader(inputs[0].name, shape, batch, dict(constants), one_row)
    for index, node_proto in enumerate(proto.graph.node):
        reader.read(node_proto, index)
    output = reader.finish(proto.graph.output[0].name)
    used = {name for node in reader.nodes for name in node.weight_names}
    graph = Graph(
        name=proto.graph.name or path.stem,
        input=inputs[0].name,
        input_shape=reader.input_shape,
        nodes=tuple(reader.nodes),
        weights={name: array for name, array in reader.constants.items() if name in used},
    )
    if output != graph.output:
        raise ModelError("the graph's output is not what its last node writes", str(path), "export it again")
    return graph


def _input_shape(value: onnx.ValueInfoProto, path: Path) -> tuple[int | None, Shape]:
    """(samples that the file was made for, or None where it leaves that open; per-sample shape) of the input."""
    batch, *shape = [int(dim.dim_value) for dim in value.type.tensor_type.shape.dim] or [0]
    if not shape or min(shape) < 1:
        raise UnsupportedError(f"the input shape {tuple(shape)} is not fixed", str(path), "export with fixed C, H, W")
    return batch or None, tuple(shape)


def _adaptation_from(text: str, graph: Graph, arrays: Mapping[str, Float32Array], path: Path) -> Adaptation:
    where = f"{path}, adaptation record"
    try:
        record: dict[str, Any] = json.loads(text)
        if record["schema"] != SCHEMA_VERSION:
            raise ModelError(f"has schema {record['schema']}, expected {SCHEMA_VERSION}", where, "update pmeta")
        names = [layer.name for layer in graph.layers]
        if record["layers"] != names:
            raise ModelError(f"names the layers {record['layers']}, the graph has {names}", where, "export it again")
        adaptation = Adaptation(
            method=str(record["method"]),
            ways=_integer(record, "ways"),
            shots=_integer(record, "shots"),
            alpha=arrays[PREFIX + "alpha"],
            updates=tuple(tuple(parts) for parts in record["update"]),
            rho_fw=_integer(record, "rho_fw"),
            rho_bw=_integer(record, "rho_bw"),
            encoding=_encoding_from(record["input"]),
            attention=_attention_from(names, arrays),
            alpha_in=_tables_from("alpha_in", names, arrays),
            alpha_out=_tables_from("alpha_out", names, arrays),
            loss=record["loss"],
            sample_batch=_integer(record, "sample_batch"),
            storage=Storage(**record.get("storage", {})),
            class_names=_strings(record, "class_names"),
            training=record["training"],
        )
        steps = _integer(record, "steps")
    except KeyError as error:
        raise ModelError(f"lacks {error}", where, "export it again") from error
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(f"is damaged ({error})", where, "export it again") from error
    if steps != adaptation.steps:
        raise ModelError(f"says {steps} steps, pmeta.alpha has {adaptation.steps}", where, "export it again")
    return adaptation


def _integer(record: Mapping[str, Any], key: str) -> int:
    value = record[key]
    if type(value) is not int:
        raise TypeError(f"'{key}' is {value!r}, expected an integer")
    return value


def _strings(record: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = record[key]
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"'{key}' is {values!r}, expected a list of strings")
    return tuple(values)


def _encoding_from(record: Mapping[str, Any]) -> InputEncoding:
    # Values were written from float32; as float32 they come back without loss.
    with np.errstate(over="ignore"):  # what overflows is refused as infinite
        scale = tuple(float(np.float32(v)) for v in record["scale"])
        offset = tuple(float(np.float32(v)) for v in record["offset"])
    return InputEncoding(record["encoding"], scale, offset)


def _attention_from(names: list[str], arrays: Mapping[str, Float32Array]) -> dict[str, LayerAttention]:
    found = {}
    for layer in names:
        modules = [_attention_module(f"{PREFIX}att.{layer}.{direction}.", arrays) for direction in ("fw", "bw")]
        if any(module is not None for module in modules):
            found[layer] = LayerAttention(*modules)
    return found


def _attention_module(prefix: str, arrays: Mapping[str, Float32Array]) -> AttentionModule | None:
    present = [prefix + part in arrays for part in ATTENTION_PARTS]
    if not any(present):
        return None
    return AttentionModule(*(arrays[prefix + part] for part in ATTENTION_PARTS))


def _tables_from(kind: str, names: list[str], arrays: Mapping[str, Float32Array]) -> dict[str, Float32Array]:
    return {name: arrays[key] for name in names if (key := f"{PREFIX}{kind}.{name}") in arrays}
