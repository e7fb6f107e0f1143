"""What a program computes gradients for."""

from __future__ import annotations

from pmeta.codegen.adaptation import Model, UpdatedPart
from pmeta.codegen.graph import Graph

Learning = frozenset[tuple[str, UpdatedPart]]  # (layer, part) pairs


def learning_in_step(model: Model, step: int) -> Learning:
    """What changes at the end of a step."""
    return frozenset((weight.layer, weight.part) for weight in model.learned_in_step(step))


def gradient_needed(graph: Graph, learning: Learning) -> frozenset[str]:
    """The activations whose gradient some learning layer below them needs."""
    layers = {layer for layer, _ in learning}
    needed: set[str] = set()
    for node in graph.nodes:
        if node.name in layers or needed.intersection(node.inputs):
            needed.add(node.output)
    return frozenset(needed)
