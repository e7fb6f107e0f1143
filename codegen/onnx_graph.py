"""From the nodes of an ONNX file to those of a `Graph`.

The file is read as for one sample. Constants may lie in the file or come from Constant nodes; sizes that exporters
compute from a tensor's shape are computed here; and nodes that change nothing for one sample (Identity, Dropout that
does not train, Reshape and Transpose that move no element) are left out, or become a Flatten. What says an operator of
the graph in other words is the matter of `pmeta.codegen.onnx_rewrites`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from pmeta.codegen.errors import ModelError, UnsupportedError
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_node import Constant, OnnxNode
from pmeta.codegen.onnx_rewrites import FOLDS, REWRITES, over_one_row, unused_name
from pmeta.codegen.operators import OPERATORS, Flatten

MOST_SIZES = 64  # numbers in a tensor of sizes: more than any tensor has dimensions
BATCH_AS_IT_IS = (0, -1)  # ONNX: copied from the input, or what is left for it


@dataclass
class NodeReader:
    """Takes one ONNX node after the other."""

    input_name: str
    input_shape: Shape  # per sample
    batch: int | None  # number of samples that the file was made for; None where it leaves that open
    constants: dict[str, Constant]
    one_row: bool = False  # the file's samples are (C, L), the graph's (C, 1, L)
    nodes: list[Node] = field(default_factory=list)
    _other_names: dict[str, str] = field(default_factory=dict)  # output of a node that is left out -> what it reads
    _shapes: dict[str, Shape] = field(default_factory=dict)  # of the outputs of the first `_measured` nodes
    _measured: int = 0
    _folded: dict[str, str] = field(default_factory=dict)  # activation that is not computed any more -> by which node

    def read(self, proto: onnx.NodeProto, index: int) -> None:
        """Append what `proto`, the file's node number `index`, is to the graph."""
        node = OnnxNode.from_proto(proto, index, self.constants)
        node = replace(node, inputs=tuple(self.name_of(name) for name in node.inputs))
        if proto.domain not in ("", "ai.onnx"):
            raise _not_supported(node)
        self._check_not_folded(node)
        if node.op_type == "Constant":
            self.constants[node.outputs[0]] = constant_value(node)
        elif node.op_type == "Shape":
            self.constants[node.outputs[0]] = self._sizes(node)
        elif node.op_type in _OF_SIZES and all(name in self.constants for name in node.inputs):
            self.constants[node.outputs[0]] = _of_sizes(node)
        elif node.op_type in ("Reshape", "Transpose"):
            self._reshape(node)
        elif node.op_type in ("Identity", "Dropout"):
            self._leave_out(node)
        elif node.op_type == "BatchNormalization" or self._adds_a_constant(node):
            self._fold(node)
        else:
            self._append(self._rewritten(node))

    def name_of(self, name: str) -> str:
        """What the graph calls an activation or a constant of the file."""
        return self._other_names.get(name, name)

    def _check_not_folded(self, node: OnnxNode) -> None:
        for name in node.inputs:
            if name in self._folded:
                what = f"reads '{name}', which is not computed by itself: {self._folded[name]} is part of its layer"
                raise node.unsupported(what, "let it read what that node computes")

    def _append(self, node: OnnxNode) -> None:
        if node.op_type not in OPERATORS:
            raise _not_supported(node)
        self.nodes.append(OPERATORS[node.op_type].from_onnx(self._with_own_weights(node)))

    def _with_own_weights(self, node: OnnxNode) -> OnnxNode:
        """Constants that an earlier node reads as copies of this one's own: exporters merge weights that are equal."""
        owned = {name for known in self.nodes for name in known.weight_names}
        inputs = list(node.inputs)
        for position, name in enumerate(inputs):
            if name in self.constants and name in {*owned, *inputs[:position]}:
                inputs[position] = unused_name(name, self.constants)
                self.constants[inputs[position]] = self.constants[name]
        return replace(node, inputs=tuple(inputs))

    def _rewritten(self, node: OnnxNode) -> OnnxNode:
        """`node` as an operator of the graph, if it is one in other words."""
        if node.op_type in REWRITES:
            node, new = REWRITES[node.op_type](node, self._shape(node))
            self.constants.update(new)
        if self.one_row:
            node, new = over_one_row(node)
            self.constants.update(new)
        return node

    def _adds_a_constant(self, node: OnnxNode) -> bool:
        return node.op_type == "Add" and any(name in self.constants for name in node.inputs)

    def _fold(self, node: OnnxNode) -> None:
        """Make `node` a part of the layer that computes what it reads."""
        position = next((n for n, name in enumerate(node.inputs) if name not in self.constants), 0)
        shape, source = self._shape(node, position), node.inputs[position]
        layer = next((known for known in self.nodes if known.output == source), None)
        folded, new = FOLDS[node.op_type](node, layer, shape)
        if layer is None or any(source in known.inputs for known in self.nodes):
            raise node.unsupported(f"other nodes read '{source}', too", "let them read what this node computes")
        self.constants.update(new)
        self._folded[source] = node.where
        self._measured = self.nodes.index(layer)
        self.nodes[self._measured] = folded

    def _leave_out(self, node: OnnxNode) -> None:
        if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2]:
            training = self.constants.get(node.inputs[2])
            if training is None or training.any():
                raise node.unsupported("it drops elements, as in training", "export the network in evaluation mode")
        self._other_names[node.outputs[0]] = node.inputs[0]

    def _reshape(self, node: OnnxNode) -> None:
        before = self._shape(node)
        after = _reshaped(node, before, self.batch) if node.op_type == "Reshape" else _transposed(node, before)
        if after == before:
            self._leave_out(node)
        elif after == (prod(before),):
            self.nodes.append(Flatten(node.name, node.inputs[0], node.outputs[0]))
        else:
            todo = "only a Flatten of the whole sample is possible"
            raise node.unsupported(f"turns a sample of {before} into one of {after}", todo)

    def _sizes(self, node: OnnxNode) -> Constant:
        """What a Shape node gives, as constants."""
        node.require({"start": 0}, ("end",))
        sizes = (self.batch or 1, *self._shape(node))
        return np.array(sizes[: node.attributes.get("end")], np.int64)

    def _shape(self, node: OnnxNode, position: int = 0) -> Shape:
        """Per-sample shape, in the file, of what a node reads as its input number `position`."""
        self._shapes[self.input_name] = self.input_shape
        for known in self.nodes[self._measured :]:
            if all(name in self._shapes for name in known.inputs):
                self._shapes[known.output] = known.joined_shape([self._shapes[name] for name in known.inputs])
        self._measured = len(self.nodes)
        if position >= len(node.inputs) or node.inputs[position] not in self._shapes:
            raise node.unsupported("it reads no activation", "export the network without it")
        shape = self._shapes[node.inputs[position]]
        return (shape[0], shape[2]) if self.one_row and len(shape) == 3 else shape


def constant_value(node: OnnxNode) -> Constant:
    """The value of a Constant node."""
    for key, kind in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64)):
        if key in node.attributes:
            return np.array(node.attributes[key], kind)
    if "value_ints" in node.attributes:
        return np.array(node.attributes["value_ints"], np.int64)
    tensor = node.attributes.get("value")
    if not isinstance(tensor, onnx.TensorProto):
        raise node.unsupported("its value is not a tensor of numbers", "export with plain constants")
    return tensor_value(tensor, node.where)


def tensor_value(tensor: onnx.TensorProto, where: str) -> Constant:
    """A tensor of the file as a read-only array."""
    try:
        array = np.array(numpy_helper.to_array(tensor), order="C")
    except (ValueError, TypeError) as error:
        raise ModelError(f"the values of '{tensor.name}' are damaged", where, "export it again") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelError(f"weight '{tensor.name}' has NaN or infinite values", where, "train it again")
    array.setflags(write=False)
    return array


def _not_supported(node: OnnxNode) -> UnsupportedError:
    known = sorted({*OPERATORS, *REWRITES, *FOLDS})
    return node.unsupported("the operator is not supported", f"use only {', '.join(known)}")


# --- shapes of one sample ------------------------------------------------------------------------------------


def _reshaped(node: OnnxNode, before: Shape, batch: int | None) -> Shape:
    """Per-sample shape that a Reshape asks for."""
    target = [int(size) for size in np.atleast_1d(_sizes_in(node, 1))]
    if node.attributes.get("allowzero", 0) and 0 in target:
        raise node.unsupported(f"the shape {target} is empty", "export without allowzero")
    if not target or target[0] not in (*BATCH_AS_IT_IS, batch or 1):
        raise node.unsupported(f"the shape {target} mixes samples", "keep the first dimension as it is")
    sizes = [before[axis] if size == 0 and axis < len(before) else size for axis, size in enumerate(target[1:])]
    known = prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and target[0] != -1 and known > 0:
        sizes[sizes.index(-1)] = prod(before) // known
    if min(sizes, default=1) < 1 or prod(sizes) != prod(before):
        raise node.unsupported(f"the shape {target} does not fit a sample of {before}", "keep samples apart")
    return tuple(sizes)


def _transposed(node: OnnxNode, before: Shape) -> Shape:
    """Per-sample shape after a Transpose, which may only move dimensions of size 1."""
    axes = range(len(before) + 1)
    order = [int(axis) for axis in node.attributes.get("perm", reversed(axes))]
    if sorted(order) != list(axes):
        raise node.unsupported(f"perm = {order} does not fit a sample of {before}", "export it again")
    moved = [axis for axis in order if axis == 0 or before[axis - 1] > 1]
    if order[0] != 0 or moved != sorted(moved):
        raise node.unsupported(f"perm = {order} moves elements of a sample of {before}", "leave the order as it is")
    return tuple(before[axis - 1] for axis in order[1:])


# --- sizes that exporters compute ----------------------------------------------------------------------------

Sizes = npt.NDArray[np.int64]


def _sizes_in(node: OnnxNode, position: int) -> Sizes:
    """Input number `position`: a constant, short list of integers, or one integer."""
    name = node.inputs[position] if position < len(node.inputs) else ""
    sizes = node.constants.get(name)
    if sizes is None or sizes.dtype != np.int64 or sizes.ndim > 1 or sizes.size > MOST_SIZES:
        raise node.unsupported(f"input {position} is no constant list of sizes", "export with fixed shapes")
    return sizes


def _of_sizes(node: OnnxNode) -> Constant:
    values = [_sizes_in(node, position) for position in range(len(node.inputs))]
    try:
        result = _OF_SIZES[node.op_type](values)
    except (ValueError, IndexError) as error:
        raise node.unsupported("it does not fit its inputs", "export with fixed shapes") from error
    if result.size > MOST_SIZES:
        raise node.unsupported("too many sizes", "export with fixed shapes")
    return result


_OF_SIZES: Mapping[str, Callable[[list[Sizes]], Sizes]] = {
    "Concat": np.concatenate,
    "Gather": lambda values: np.asarray(np.atleast_1d(values[0])[values[1]]),
    "Unsqueeze": lambda values: values[0].reshape(1),
}
