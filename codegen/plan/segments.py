"""Segments: chains of nodes that can run together, slice by slice of their channels.

GroupNormalization's statistics belong to a group of channels, activations and pooling to one channel. So a convolution
and what follows it can run for one slice of its filters at a time, and only a slice of each map but the last is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import gcd

from pmeta.codegen.graph import Graph, Node, Slicing
from pmeta.codegen.operators.max_pool import MaxPool
from pmeta.codegen.operators.relu import Relu


@dataclass(frozen=True)
class Segment:
    """Nodes of which each reads only what the one before it wrote, and nobody else does.

    The head reads its input whole, unless `in_parts`: then the same channels that it writes, of all its inputs.
    """

    nodes: tuple[Node, ...]
    slices: int  # 1: the nodes run one after the other, each on its whole map

    @property
    def head(self) -> Node:
        """The first node."""
        return self.nodes[0]

    @property
    def in_parts(self) -> bool:
        """Whether the head reads its inputs slice by slice."""
        return self.slices > 1 and self.head.slicing is not Slicing.HEAD

    @property
    def output(self) -> str:
        return self.nodes[-1].output


def relu_after_pool(graph: Graph) -> Graph:
    """Swap every Relu -> MaxPool pair: the same bits (docs/numerics.md), and Relu touches fewer elements."""
    nodes = list(graph.nodes)
    for index, relu in enumerate(nodes):
        readers = graph.readers(relu.output)
        if isinstance(relu, Relu) and len(readers) == 1 and isinstance(readers[0], MaxPool):
            pool = readers[0]
            nodes[index] = replace(pool, input=relu.input, output=relu.output)
            nodes[nodes.index(pool)] = replace(relu, input=relu.output, output=pool.output)
    return Graph(graph.name, graph.input, graph.input_shape, tuple(nodes), graph.weights)


def segments(graph: Graph, slice_channels: int | None, decoding: bool = False) -> tuple[Segment, ...]:
    """The graph as segments, in the order of their heads.

    slice_channels: channels per slice where no normalization says; None: nothing is sliced, every node by itself.
    decoding: maps are stored in fewer bits, so that it pays to read them slice by slice.
    """
    found: list[Segment] = []
    placed: set[str] = set()
    for node in graph.nodes:
        if node.name not in placed:
            nodes = (node,) if slice_channels is None else tuple(_chain(graph, node, decoding))
            slices = 1 if slice_channels is None else _slices(graph, nodes, slice_channels, decoding)
            if slices == 1:
                nodes = (node,)
            placed.update(member.name for member in nodes)
            found.append(Segment(nodes, slices))
    return tuple(found)


def _chain(graph: Graph, head: Node, decoding: bool) -> Iterator[Node]:
    """`head`, and the nodes behind it that can follow it slice by slice."""
    yield head
    reads_parts = decoding and head.slicing is not Slicing.NO
    readers = graph.readers(head.output) if head.slicing is Slicing.HEAD or reads_parts else ()
    while len(readers) == 1 and readers[0].slicing is Slicing.MEMBER:
        yield readers[0]
        readers = graph.readers(readers[0].output)


def _slices(graph: Graph, nodes: tuple[Node, ...], slice_channels: int, decoding: bool) -> int:
    """Into how many slices a chain can be cut: as many as all its normalizations allow."""
    alone = len(nodes) == 1 and not (decoding and nodes[0].slicing is Slicing.JOIN)
    if alone or len(graph.shapes[nodes[0].output]) == 1:
        return 1
    limits = [node.most_slices for node in nodes if node.most_slices is not None]
    channels = graph.shapes[nodes[0].output][0]
    if limits:
        return gcd(channels, *limits)
    return channels // gcd(channels, slice_channels)
