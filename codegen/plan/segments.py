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
    """Nodes of which each reads only what the one before it wrote, and nobody else does."""

    nodes: tuple[Node, ...]
    slices: int  # 1: the nodes run one after the other, each on its whole map

    @property
    def head(self) -> Node:
        """The first node: it reads its input whole."""
        return self.nodes[0]

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


def segments(graph: Graph, slice_channels: int | None) -> tuple[Segment, ...]:
    """The graph as segments, in the order of their heads.

    slice_channels: channels per slice where no normalization says; None: nothing is sliced, every node by itself.
    """
    found: list[Segment] = []
    placed: set[str] = set()
    for node in graph.nodes:
        if node.name not in placed:
            nodes = (node,) if slice_channels is None else tuple(_chain(graph, node))
            slices = _slices(graph, nodes, slice_channels or 1)
            if slices == 1:
                nodes = (node,)
            placed.update(member.name for member in nodes)
            found.append(Segment(nodes, slices))
    return tuple(found)


def _chain(graph: Graph, head: Node) -> Iterator[Node]:
    """`head`, and the nodes behind it that can follow it slice by slice."""
    yield head
    readers = graph.readers(head.output) if head.slicing is Slicing.HEAD else ()
    while len(readers) == 1 and readers[0].slicing is Slicing.MEMBER:
        yield readers[0]
        readers = graph.readers(readers[0].output)


def _slices(graph: Graph, nodes: tuple[Node, ...], slice_channels: int) -> int:
    """Into how many slices a chain can be cut: as many as all its normalizations allow."""
    if len(nodes) == 1:
        return 1
    limits = [node.most_slices for node in nodes if node.most_slices is not None]
    channels = graph.shapes[nodes[0].output][0]
    if limits:
        return gcd(channels, *limits)
    return channels // gcd(channels, slice_channels)
