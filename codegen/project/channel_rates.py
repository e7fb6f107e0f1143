"""α^Ch in lib/pmeta_model: constant tables, and the calls that apply them to the accumulators at a step's end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from pmeta.codegen.graph import Float32Array, Node, Shape
from pmeta.codegen.operators import Conv, GroupNorm
from pmeta.codegen.plan.plan import Plan

FUNCTION = "pmeta_scale_channels"


@dataclass(frozen=True)
class ChannelRates:
    """One weight that learns with step sizes per channel."""

    layer: str
    tensor: str  # its number, as C has it
    arguments: tuple[str, ...]  # of FUNCTION


def channel_tables(plan: Plan) -> Iterator[tuple[str, Float32Array]]:
    """(C identifier, values) of the tables that some call reads."""
    learning = {weight.layer for weight in plan.learned}
    for layer in plan.graph.layers:
        for side, tables in _sides(plan):
            if layer.name in learning and layer.name in tables:
                yield f"{plan.names[layer.name]}_alpha_{side}", tables[layer.name]


def channel_rates(plan: Plan) -> Iterator[ChannelRates]:
    """In the order of the tensors; a bias has no input channels."""
    layers = {layer.name: layer for layer in plan.graph.layers}
    tables = {name for name, _ in channel_tables(plan)}
    for weight in plan.learned:
        layer = layers[weight.layer]
        prefix = f"{plan.names[layer.name]}_alpha_"
        wanted = {"out": True, "in": weight.part == "weight"}
        rates = [
            f"pmeta_const_{prefix}{side}" if has and prefix + side in tables else "NULL" for side, has in wanted.items()
        ]
        if rates != ["NULL", "NULL"]:
            rows, columns, taps, group_rows = _geometry(layer, weight.weight.shape)
            tensor = f"tensor_{plan.names[weight.name]}"
            numbers = map(str, (rows, columns, taps, group_rows))
            yield ChannelRates(layer.name, tensor, (*numbers, *rates, f"pmeta_gradient({tensor})"))


def _sides(plan: Plan) -> tuple[tuple[str, dict[str, Float32Array]], ...]:
    adaptation = plan.model.adaptation
    return ("in", dict(adaptation.alpha_in)), ("out", dict(adaptation.alpha_out))


def _geometry(layer: Node, shape: Shape) -> tuple[int, int, int, int]:
    """(rows, columns, taps, rows of one group) of a weight; output channels are its rows."""
    columns = shape[1] if len(shape) > 1 else 1
    groups = layer.groups if isinstance(layer, Conv) else shape[0] if isinstance(layer, GroupNorm) else 1
    return shape[0], columns, prod(shape[2:]), shape[0] // groups
