"""Other poolings and normalizations for a network: Table 5 of the paper."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pmeta.codegen.errors import UnsupportedError
from pmeta.codegen.graph import Graph, Node, Shape
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators import AveragePool, GroupNorm, MaxPool
from pmeta.codegen.plan.program import Buffer

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering

Normalization = Literal["group", "batch"]
Pooling = Literal["max", "average"]


@dataclass(frozen=True)
class BatchNorm(Node):
    """x̂ = (x − mean)·rstd over all pixels of a channel in a micro-batch; z = x̂·scale + shift (Ioffe & Szegedy, 2015).

    Statistics are those of the micro-batch at hand, in training and in use; there are no running averages. For the
    trainer alone: the device has one sample at a time, which is why the paper normalizes by groups.
    """

    scale: str  # name of the per-channel scale, (C,)
    shift: str  # name of the per-channel shift, (C,)
    epsilon: float  # added to the variance
    samples: int | None = None  # per micro-batch, the last may have fewer; None: all there are

    @property
    def weight_names(self) -> tuple[str, ...]:
        return (self.scale, self.shift)

    def weight_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        return ((input_shape[0],), (input_shape[0],))

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_onnx(self) -> OnnxNode:
        raise self._refusal()

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        raise self._refusal()

    def _refusal(self) -> UnsupportedError:
        return UnsupportedError(
            "batch statistics cannot run on the device", f"node '{self.name}'", 'train with normalization = "group"'
        )


def varied(graph: Graph, normalization: Normalization, pooling: Pooling) -> Graph:
    """`graph` with every GroupNorm a BatchNorm, every max-pooling an average pooling, as asked."""

    def other(node: Node) -> Node:
        match node:
            case GroupNorm() if normalization == "batch":
                return BatchNorm(node.name, node.input, node.output, node.scale, node.shift, node.epsilon)
            case MaxPool() if pooling == "average":
                return AveragePool(node.name, node.input, node.output, node.window, count_include_pad=False)
        return node

    return replace(graph, nodes=tuple(other(node) for node in graph.nodes))


def has_batch_statistics(graph: Graph) -> bool:
    """Whether samples of a batch see each other."""
    return any(isinstance(node, BatchNorm) for node in graph.nodes)


def with_micro_batches(graph: Graph, samples: int | None) -> Graph:
    """`graph` for batches that consist of micro-batches of so many samples; None: of one."""
    if not has_batch_statistics(graph):
        return graph
    nodes = (replace(node, samples=samples) if isinstance(node, BatchNorm) else node for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))
