"""Which weights learn, and when."""

from __future__ import annotations

from pmeta.codegen.adaptation import Model, UpdatedPart
from pmeta.codegen.graph import Graph

PARTS: tuple[UpdatedPart, ...] = ("weight", "bias")  # in the order of Node.weight_names
Learning = frozenset[tuple[str, UpdatedPart]]  # (layer, part) pairs


def learned_weights(model: Model) -> dict[str, tuple[str, UpdatedPart, tuple[int, ...]]]:
    """Weights that change in some step, in layer order: name -> (layer, part, steps at whose end it changes)."""
    found: dict[str, tuple[str, UpdatedPart, tuple[int, ...]]] = {}
    for index, layer in enumerate(model.graph.layers):
        for name, part in zip(layer.weight_names, PARTS, strict=False):
            steps = tuple(k for k in range(1, model.adaptation.steps + 1) if model.learns(index, part, k))
            if steps:
                found[name] = (layer.name, part, steps)
    return found


def learning_in_step(model: Model, step: int) -> Learning:
    """What changes at the end of a step."""
    return frozenset((layer, part) for layer, part, steps in learned_weights(model).values() if step in steps)


def gradient_needed(graph: Graph, learning: Learning) -> frozenset[str]:
    """The activations whose gradient some learning layer below them needs."""
    layers = {layer for layer, _ in learning}
    needed: set[str] = set()
    for node in graph.nodes:
        if node.name in layers or needed.intersection(node.inputs):
            needed.add(node.output)
    return frozenset(needed)
