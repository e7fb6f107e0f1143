"""How finished maps, and what the backward pass reads of the forward pass, are stored: in fewer bits, if asked for.

Everything is computed in float32; a number is rounded once, when it is stored (docs/numerics.md, "Storage").
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Graph, Shape, Slicing

StoredType = Literal["float32", "float16", "int8"]
MapType = Literal["float32", "float16"]


@dataclass(frozen=True)
class Storage:
    """The types of stored numbers."""

    kept: StoredType = "float32"  # layer inputs, x̂ and activations that the backward pass reads
    maps: MapType = "float32"  # finished maps: what one chain of nodes hands to the next

    def __post_init__(self) -> None:
        for what, value, possible in (("kept", self.kept, StoredType), ("maps", self.maps, MapType)):
            if value not in get_args(possible):
                known = ", ".join(get_args(possible))
                raise ModelError(f"storage type {value!r} for {what}", "adaptation record", f"use one of: {known}")

    def kept_as(self, shape: Shape) -> StoredType:
        """The type in which a map (C, H, W) or a vector (C,) is kept: where a row is one element, its scale would take
        more than int8 saves."""
        return "float32" if self.kept == "int8" and row_elements(shape) == 1 else self.kept


def row_elements(shape: Shape) -> int:
    """Elements of a row: the pixels of one channel of a map, or all of a vector."""
    return prod(shape[1:]) if len(shape) > 1 else shape[0]


def finished_maps(graph: Graph) -> frozenset[str]:
    """The activations that count as finished maps: not what the only node that reads it consumes channel by channel.

    The sample is none, and neither are the logits. A view hands on the map it reads.
    """
    finished = set()
    for node in graph.nodes[:-1]:
        readers = graph.readers(node.output)
        consumed = len(readers) == 1 and readers[0].slicing is Slicing.MEMBER
        if not consumed and not node.is_view and leads_on(graph, node.output):
            finished.add(node.output)
    return frozenset(finished)


def leads_on(graph: Graph, activation: str) -> bool:
    """Whether some node computes with it: else it is the logits."""
    readers = graph.readers(activation)
    return any(leads_on(graph, node.output) if node.is_view else True for node in readers)


def is_sample(graph: Graph, activation: str) -> bool:
    """Whether it is the sample itself, flattened or not."""
    writers = {node.output: node for node in graph.nodes}
    writer = writers.get(activation)
    while writer is not None and writer.is_view:
        activation = writer.input
        writer = writers.get(activation)
    return activation == graph.input
