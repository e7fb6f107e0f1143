"""The graph: what the network computes for one sample, as immutable data.

A `Graph` is a feed-forward network of nodes in topological order. Shapes are per sample, without the batch
dimension: (C, H, W) for maps, (C,) for vectors. Weights are read-only float32 arrays by name. Everything else
(the ONNX file, the plan, the C, the simulator) is derived from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from pmeta.codegen.errors import ModelError, UnsupportedError
from pmeta.codegen.onnx_node import OnnxNode

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering
    from pmeta.codegen.plan.program import Buffer, ShapeConstants

Shape = tuple[int, ...]
MAX_NODES = 256
MAX_ELEMENTS = 1 << 24  # of one activation: far above any microcontroller, low enough to be computed here
Float32Array = npt.NDArray[np.float32]


def frozen_float32(array: npt.ArrayLike) -> Float32Array:
    """A read-only, C-contiguous float32 copy of `array`."""
    copy = np.array(array, dtype=np.float32, order="C")
    copy.setflags(write=False)
    return copy


class Slicing(Enum):
    """Whether a node can run for some of its output channels at a time (pmeta.codegen.plan.segments)."""

    NO = "no"
    HEAD = "head"  # it then reads its whole input, and begins a segment
    MEMBER = "member"  # it then needs the same channels of its input
    JOIN = "join"  # it then needs the same channels of all its inputs, and begins a segment


@dataclass(frozen=True)
class Node:
    """One operator of the graph. Its subclasses live in `pmeta.codegen.operators`, one file each."""

    slicing: ClassVar[Slicing] = Slicing.NO
    reads_uint8: ClassVar[bool] = False  # whether its forward kernel takes the sample as it travels
    keeps_map: ClassVar[bool] = False  # whether its backward pass reads a map of the forward pass, not only bits of it
    is_view: ClassVar[bool] = False  # whether its output is its input, byte for byte
    reads_float16: ClassVar[bool] = False  # whether its forward pass takes maps of float16

    name: str  # unique in the graph; also the layer's name where the node is a layer
    input: str  # the activation it reads, or the first of them
    output: str  # the activation it writes

    @property
    def inputs(self) -> tuple[str, ...]:
        """All activations it reads; more than one where branches join."""
        return (self.input,)

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Node:
        """The node as pmeta sees it; raises UnsupportedError for what it cannot generate."""
        raise NotImplementedError

    def to_onnx(self) -> OnnxNode:
        """The ONNX node that `from_onnx` reads back as an equal one."""
        raise NotImplementedError

    def output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for one sample; raises ModelError where the input does not fit."""
        raise NotImplementedError

    def joined_shape(self, shapes: Sequence[Shape]) -> Shape:
        """`output_shape` from the shapes of all `inputs`; for operators that join branches."""
        return self.output_shape(shapes[0])

    @property
    def weight_names(self) -> tuple[str, ...]:
        """Names of the weights it owns: (weight,) or (weight, bias); empty where it is not a layer."""
        return ()

    def weight_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        """Shapes that `weight_names` must have for this input."""
        return ()

    @property
    def is_layer(self) -> bool:
        """Whether it counts as a layer of the paper: a row of the step-size table α."""
        return bool(self.weight_names)

    def attention_channels(self, input_shape: Shape) -> tuple[int, int]:
        """(channels of γ^fw, channels of γ^bw) for a layer (Eqs. 10 and 11)."""
        return input_shape[0], self.output_shape(input_shape)[0]

    def shape_constants(self, input_shape: Shape) -> ShapeConstants | None:
        """The struct that tells the node's kernels its shape; None where they take plain numbers."""
        return None

    @property
    def most_slices(self) -> int | None:
        """Into how many slices its channels can be cut; None: each channel may be a slice."""
        return None

    def sliced(self, slices: int) -> Node:
        """The node that computes one of `slices` equal slices of the output channels."""
        return self

    def lower_prologue(self, low: Lowering, x: Buffer) -> None:
        """Emit what is done once before `lower_forward`, with the whole input."""

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        """Emit the calls of the forward pass, reading `x`, the (first) input; returns the buffer with the output."""
        raise NotImplementedError

    def lower_joined_forward(self, low: Lowering, inputs: Sequence[Buffer]) -> Buffer:
        """`lower_forward` from all `inputs`; for operators that join branches."""
        return self.lower_forward(low, inputs[0])

    def lower_again(self, low: Lowering, x: Buffer) -> Buffer:
        """Emit what the backward pass computes again because the forward pass did not keep it; returns the output."""
        raise NotImplementedError

    def lower_epilogue(self, low: Lowering) -> None:
        """Emit what is done once after `lower_forward` has run for all slices."""

    def lower_weight_gradient(self, low: Lowering, g: Buffer) -> None:
        """Emit what adds to the accumulators of the parts that learn, from `g`, the gradient of the output."""

    def weight_gradient_needs_whole(self, low: Lowering) -> bool:
        """Whether `lower_weight_gradient` cannot run slice by slice."""
        return True

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        """Emit the backward pass from `g`, the gradient of the output; returns the gradient of the (first) input."""
        raise NotImplementedError

    def lower_input_gradients(self, low: Lowering, g: Buffer) -> tuple[Buffer, ...]:
        """`lower_input_gradient` for all `inputs`, in their order; for operators that join branches."""
        return (self.lower_input_gradient(low, g),)

    def forward_macs(self, input_shape: Shape) -> int:
        """Nominal multiply-accumulates of one forward pass (padding taps count)."""
        return 0


@dataclass(frozen=True)
class Graph:
    """A feed-forward network of nodes with its weights.

    Invariants, checked at construction: names are unique, each node reads what nodes before it wrote, everything but
    the last output is read, shapes follow from the input's, and every weight exists with the shape its node needs.
    """

    name: str
    input: str  # name of the input activation
    input_shape: Shape  # per sample, (C, H, W) or (C,)
    nodes: tuple[Node, ...]
    weights: Mapping[str, Float32Array]
    shapes: Mapping[str, Shape] = field(init=False)  # of every activation; derived

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))
        self._check_owners()
        object.__setattr__(self, "shapes", MappingProxyType(self._checked_shapes()))

    def _checked_shapes(self) -> dict[str, Shape]:
        if not self.nodes:
            raise ModelError("the graph has no nodes", self.name, "export a network with at least one layer")
        if len(self.nodes) > MAX_NODES:
            what = f"the graph has {len(self.nodes)} nodes, at most {MAX_NODES} are possible"
            raise UnsupportedError(what, self.name, "use a smaller network")
        shapes: dict[str, Shape] = {self.input: self.input_shape}
        names: set[str] = set()
        self._check_size(self.input_shape, "the input")
        for node in self.nodes:
            where = f"{self.name}, node '{node.name}'"
            if node.name in names or node.output in shapes:
                raise ModelError("a name is used twice", where, "give every node and tensor its own name")
            unknown = [name for name in node.inputs if name not in shapes]
            if unknown:
                raise ModelError(f"reads '{unknown[0]}', which no node before it writes", where, "export it again")
            names.add(node.name)
            self._check_weights(node, shapes[node.input], where)
            shapes[node.output] = node.joined_shape([shapes[name] for name in node.inputs])
            if prod(shapes[node.output]) < 1:
                raise ModelError("the output is empty", where, "use a larger input or smaller windows")
            self._check_size(shapes[node.output], f"the output of node '{node.name}'")
        read = {name for node in self.nodes for name in node.inputs}
        for node in self.nodes[:-1]:
            if node.output not in read:
                where = f"{self.name}, node '{node.name}'"
                raise ModelError(
                    f"nothing reads its output '{node.output}'", where, "remove it, or use what it computes"
                )
        return shapes

    def _check_size(self, shape: Shape, what: str) -> None:
        if prod(shape) > MAX_ELEMENTS:
            raise UnsupportedError(
                f"{what} has {prod(shape):,} elements, at most {MAX_ELEMENTS:,} are possible",
                self.name,
                "use a smaller input, fewer channels or less padding",
            )

    def _check_owners(self) -> None:
        """Each weight belongs to one layer: it has one step size, and one gradient."""
        owned = [name for node in self.nodes for name in node.weight_names]
        shared = [name for name in owned if owned.count(name) > 1]
        if shared:
            what, todo = f"weight '{shared[0]}' is used twice", "export the model with a weight of its own for each use"
            raise UnsupportedError(what, self.name, todo)

    def _check_weights(self, node: Node, input_shape: Shape, where: str) -> None:
        for name, shape in zip(node.weight_names, node.weight_shapes(input_shape), strict=True):
            array = self.weights.get(name)
            if array is None:
                raise ModelError(f"weight '{name}' is missing", where, "export the model again")
            if array.dtype != np.float32 or array.shape != shape:
                raise ModelError(
                    f"weight '{name}' is {array.dtype} {array.shape}, expected float32 {shape}",
                    where,
                    "export the model again",
                )

    @property
    def output(self) -> str:
        """Name of the last activation: the logits, or the prediction of a regression."""
        return self.nodes[-1].output

    @property
    def output_shape(self) -> Shape:
        """Per-sample shape of the output."""
        return self.shapes[self.output]

    def readers(self, activation: str) -> tuple[Node, ...]:
        """The nodes that read an activation, in topological order."""
        return tuple(node for node in self.nodes if activation in node.inputs)

    @property
    def layers(self) -> tuple[Node, ...]:
        """The nodes with weights, in topological order: the rows of α."""
        return tuple(node for node in self.nodes if node.is_layer)

    def same_as(self, other: object) -> bool:
        """Whether both graphs are equal, weights compared by bytes."""
        if not isinstance(other, Graph):
            return False
        mine: tuple[Any, ...] = (self.name, self.input, self.input_shape, self.nodes, sorted(self.weights))
        theirs = (other.name, other.input, other.input_shape, other.nodes, sorted(other.weights))
        return mine == theirs and all(
            self.weights[name].tobytes() == other.weights[name].tobytes() for name in self.weights
        )
