"""From the nodes of an ONNX file to those of a `Graph`.

The file is read as for one sample. Constants may lie in the file, come from Constant nodes, or be computed from others
and from tensors' shapes, as exporters do (`onnx_constants`). Nodes that change nothing for one sample (Identity,
Dropout that does not train, Cast to float32) are left out. Those that only give a tensor another shape (`onnx_views`)
become a Flatten where that is a vector; any other shape must become one of the graph again before anything computes
with it, save that a sample has the shape that its first node sees. What says an operator of the graph in other words is
the matter of `onnx_rewrites`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from pmeta.codegen.errors import UnsupportedError
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_constants import computed, constant_value, is_computed
from pmeta.codegen.onnx_node import Constant, OnnxNode
from pmeta.codegen.onnx_rewrites import FOLDS, REWRITES, grouped_norm, over_one_row, unused_name, with_pads, zero_pads
from pmeta.codegen.onnx_views import VIEWS, reduced_axes
from pmeta.codegen.operators import OPERATORS, Flatten, GlobalAveragePool, MaxPool, Window

LEFT_OUT = ("Cast", "Dropout", "Identity")
REDUCTIONS = ("GlobalMaxPool", "ReduceMax", "ReduceMean")


@dataclass(frozen=True)
class View:
    """What the file calls an activation of the graph in another shape: the same numbers in the same order."""

    source: str  # the graph's activation
    shape: Shape  # per sample, in the file
    made_by: OnnxNode


@dataclass
class NodeReader:
    """Takes one ONNX node after the other."""

    input_name: str
    input_shape: Shape  # per sample
    batch: int | None  # number of samples that the file was made for; None where it leaves that open
    constants: dict[str, Constant]
    one_row: bool = False  # the file's maps are (C, L), the graph's (C, 1, L)
    nodes: list[Node] = field(default_factory=list)
    _other_names: dict[str, str] = field(default_factory=dict)  # output of a node that is left out -> what it reads
    _views: dict[str, View] = field(default_factory=dict)
    _shapes: dict[str, Shape] = field(default_factory=dict)  # of the outputs of the first `_measured` nodes
    _measured: int = 0
    _padded: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)  # output of a Pad -> (input, pads)
    _folded: dict[str, str] = field(default_factory=dict)  # activation that is not computed any more -> by which node

    def read(self, proto: onnx.NodeProto, index: int) -> None:
        """Append what `proto`, the file's node number `index`, is to the graph."""
        node = OnnxNode.from_proto(proto, index, self.constants)
        node = self._without_pad(replace(node, inputs=tuple(self.name_of(name) for name in node.inputs)))
        if proto.domain not in ("", "ai.onnx"):
            raise _not_supported(node)
        self._check_not_folded(node)
        if node.op_type == "Constant":
            self.constants[node.outputs[0]] = constant_value(node)
        elif node.op_type == "Shape":
            self.constants[node.outputs[0]] = self._sizes(node)
        elif is_computed(node):
            self.constants[node.outputs[0]] = computed(node)
        elif node.op_type in LEFT_OUT:
            self._leave_out(node)
        elif node.op_type in VIEWS:
            self._view(node)
        elif node.op_type == "Pad":
            self._padded[node.outputs[0]] = self._graph_input(node.inputs[0]), zero_pads(node, self._shape(node))
        elif node.op_type in REDUCTIONS:
            self._reduce(node)
        elif node.op_type == "BatchNormalization" or self._joins_a_constant(node):
            self._fold(node)
        elif node.op_type == "InstanceNormalization" and node.inputs[0] in self._views:
            self._normalize_groups(node)
        else:
            self._append(self._rewritten(self._with_graph_inputs(node)))

    def name_of(self, name: str) -> str:
        """What the graph calls an activation or a constant of the file."""
        return self._other_names.get(name, name)

    def finish(self, output: str) -> str:
        """The graph's name of the file's output."""
        name = self.name_of(output)
        return self._graph_input(name) if name in self._views else name

    def _check_not_folded(self, node: OnnxNode) -> None:
        for name in node.inputs:
            if name in self._folded:
                what = f"reads '{name}', which is not computed by itself: {self._folded[name]} is part of its layer"
                raise node.unsupported(what, "let it read what that node computes")

    # --- operators -------------------------------------------------------------------------------------------

    def _append(self, node: OnnxNode) -> None:
        if node.op_type not in OPERATORS:
            if node.op_type in FOLDS:
                raise node.unsupported("it joins two activations", "only a constant, one per channel, is possible")
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

    def _normalize_groups(self, node: OnnxNode) -> None:
        """InstanceNormalization of a map whose channels a Reshape put into groups: the GroupNormalization of old files.

        Its output has that shape, too; a Reshape follows that takes it back.
        """
        view = self._views[node.inputs[0]]
        output = f"{node.outputs[0]}.map"
        self._views[node.outputs[0]] = View(output, view.shape, view.made_by)
        of_map = replace(node, inputs=(view.source, *node.inputs[1:]), outputs=(output,))
        norm, new = grouped_norm(of_map, view.shape[0], self._graph_shape(of_map, view.source)[0])
        self.constants.update(new)
        self._append(norm)

    def _reduce(self, node: OnnxNode) -> None:
        """A mean or a maximum over all pixels of each channel."""
        node.require({"noop_with_empty_axes": 0}, ("axes", "keepdims"))
        before, source = self._shape(node), self._graph_input(node.inputs[0], as_map=True)
        channels, *size = self._graph_shape(node, source)
        if len(size) != 2:
            raise node.unsupported(f"it reduces a vector of {channels}", "reduce the pixels of each channel")
        axes = set(range(2, len(before) + 1)) if node.op_type == "GlobalMaxPool" else reduced_axes(node, before)
        after = tuple(1 if axis in axes else n for axis, n in enumerate(before, start=1))
        if not node.attributes.get("keepdims", 1):
            after = tuple(n for axis, n in enumerate(before, start=1) if axis not in axes)
        same = after == self._file_shape((channels, 1, 1))
        output = node.outputs[0] if same else f"{node.outputs[0]}.map"
        if node.op_type == "ReduceMean":
            self.nodes.append(GlobalAveragePool(node.name, source, output))
        else:
            self.nodes.append(MaxPool(node.name, source, output, Window((size[0], size[1]))))
        if not same:
            self._give_shape(node, output, after, f"{node.name}.flatten")

    # --- nodes that are part of others -----------------------------------------------------------------------

    def _joins_a_constant(self, node: OnnxNode) -> bool:
        return node.op_type in ("Add", "Mul") and any(name in self.constants for name in node.inputs)

    def _fold(self, node: OnnxNode) -> None:
        """Make `node` a part of the layer that computes what it reads."""
        node = self._with_graph_inputs(node)
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

    def _without_pad(self, node: OnnxNode) -> OnnxNode:
        """`node`, padding itself where it reads what a Pad writes."""
        padded = next((name for name in node.inputs if name in self._padded), None)
        if padded is None:
            return node
        source, pads = self._padded[padded]
        return with_pads(replace(node, inputs=(source, *node.inputs[1:])), pads)

    def _leave_out(self, node: OnnxNode) -> None:
        if node.op_type == "Dropout" and len(node.inputs) > 2 and node.inputs[2]:
            training = self.constants.get(node.inputs[2])
            if training is None or training.any():
                raise node.unsupported("it drops elements, as in training", "export the network in evaluation mode")
        if node.op_type == "Cast" and node.attributes.get("to") != onnx.TensorProto.FLOAT:
            raise node.unsupported("it casts to another type than float32", "export in float32")
        self._other_names[node.outputs[0]] = node.inputs[0]

    # --- shapes ----------------------------------------------------------------------------------------------

    def _view(self, node: OnnxNode) -> None:
        before = self._shape(node)
        if node.op_type == "Flatten" and len(before) == 1 and node.inputs[0] not in self._views:
            self._append(node)
            return
        view = self._views.get(node.inputs[0])
        after = VIEWS[node.op_type](node, before, self.batch)
        self._give_shape(node, view.source if view else node.inputs[0], after, node.name)

    def _give_shape(self, node: OnnxNode, source: str, shape: Shape, name: str) -> None:
        """`node` writes what `source` is, in another shape; `name` is that of a Flatten."""
        if shape == self._file_shape(self._graph_shape(node, source)):
            self._other_names[node.outputs[0]] = source
        elif len(shape) == 1:
            self.nodes.append(Flatten(name, source, node.outputs[0]))
        else:
            self._views[node.outputs[0]] = View(source, shape, node)

    def _with_graph_inputs(self, node: OnnxNode) -> OnnxNode:
        """`node`, reading activations of the graph only."""
        return replace(node, inputs=tuple(self._graph_input(name) for name in node.inputs))

    def _graph_input(self, name: str, as_map: bool = False) -> str:
        """The graph's activation that a node may compute with as `name`; refuses a shape that the graph has not.

        `as_map`: in a file of (C, L) maps, the node takes (C, 1, L), too.
        """
        view = self._views.get(name)
        if view is None:
            return name
        if view.source == self.input_name and not any(self.input_name in node.inputs for node in self.nodes):
            self._reshape_input(view.shape)
        shape = self._graph_shape(view.made_by, view.source)
        if view.shape != self._file_shape(shape) and not (as_map and view.shape == shape):
            todo = "only a Flatten of the whole sample is possible"
            what = f"turns a sample of {self._file_shape(shape)} into one of {view.shape}"
            raise view.made_by.unsupported(what, todo)
        return view.source

    def _reshape_input(self, shape: Shape) -> None:
        """Samples are given as their first node sees them: they have the same bytes."""
        if len(shape) in (2, 3):
            self.one_row = len(shape) == 2
            self.input_shape = (shape[0], 1, shape[1]) if self.one_row else shape

    def _sizes(self, node: OnnxNode) -> Constant:
        """What a Shape node gives, as constants."""
        node.require({"start": 0}, ("end",))
        constant = self.constants.get(node.inputs[0])
        sizes = (self.batch or 1, *self._shape(node)) if constant is None else constant.shape
        return np.array(sizes[: node.attributes.get("end")], np.int64)

    def _shape(self, node: OnnxNode, position: int = 0) -> Shape:
        """Per-sample shape, in the file, of what a node reads as its input number `position`."""
        if position < len(node.inputs) and node.inputs[position] in self._views:
            return self._views[node.inputs[position]].shape
        name = node.inputs[position] if position < len(node.inputs) else ""
        return self._file_shape(self._graph_shape(node, name))

    def _file_shape(self, shape: Shape) -> Shape:
        """The shape that the file gives a map or vector of the graph."""
        return (shape[0], shape[2]) if self.one_row and len(shape) == 3 else shape

    def _graph_shape(self, node: OnnxNode, name: str) -> Shape:
        """Per-sample shape, in the graph, of an activation that `node` reads."""
        self._shapes[self.input_name] = self.input_shape
        for known in self.nodes[self._measured :]:
            if all(name in self._shapes for name in known.inputs):
                self._shapes[known.output] = known.joined_shape([self._shapes[name] for name in known.inputs])
        self._measured = len(self.nodes)
        if name not in self._shapes:
            raise node.unsupported("it reads no activation", "export the network without it")
        return self._shapes[name]


def _not_supported(node: OnnxNode) -> UnsupportedError:
    known = sorted({*OPERATORS, *REWRITES, *FOLDS, *VIEWS, *REDUCTIONS, *LEFT_OUT, "Pad"})
    return node.unsupported("the operator is not supported", f"use only {', '.join(known)}")
