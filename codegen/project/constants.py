"""The constants of lib/pmeta_model: weights and attention modules, as C text or, where they are many, as one file.

Text is plain C99 that any compiler takes. From TEXT_LIMIT on it would be too slow to write and to compile: then the
values lie in pmeta_weights.bin, and pmeta_weights.S tells the assembler which bytes of it each array is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from pmeta.codegen.adaptation import AttentionModule
from pmeta.codegen.graph import Float32Array, Node
from pmeta.codegen.modelfile import ATTENTION_PARTS
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.project.channel_rates import channel_tables
from pmeta.codegen.project.templates import render

TEXT_LIMIT = 1 << 20  # bytes of constants; a compiler takes half a second for so many, as four times as much text
FLOATS_PER_ROW = 6


@dataclass(frozen=True)
class ConstantArray:
    """One array in flash: `const float pmeta_const_IDENTIFIER[...]`."""

    identifier: str
    values: Float32Array


def hex_float(value: float) -> str:
    """A float32 as an exact C literal; the shortest hexadecimal form."""
    value = float(np.float32(value))
    if value != value or value in (float("inf"), float("-inf")):
        raise AssertionError("constants are finite")
    mantissa, exponent = value.hex().split("p")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}p{exponent}f"


def shape_text(shape: Sequence[int]) -> str:
    """(16, 28, 28); a vector as (16,)."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def attention_modules(plan: Plan) -> Iterator[tuple[str, Node, str, AttentionModule]]:
    """(C name, layer, direction, module) of the attention modules that some program calls."""
    used = {argument for program in plan.adapt for call in program.calls for argument in call.arguments}
    for layer in plan.graph.layers:
        for direction in ("fw", "bw"):
            name = f"{plan.names[layer.name]}_attention_{direction}"
            if f"&{name}" in used:
                yield name, layer, direction, getattr(plan.model.adaptation.attention[layer.name], direction)


def constant_arrays(plan: Plan) -> Iterator[ConstantArray]:
    """All constant arrays: weights, then the attention modules and the step sizes per channel in use."""
    for name, array in plan.graph.weights.items():
        yield ConstantArray(plan.names[name], array)
    for name, _, _, module in attention_modules(plan):
        for part in ATTENTION_PARTS:
            yield ConstantArray(f"{name}_{part}", getattr(module, part))
    for name, table in channel_tables(plan):
        yield ConstantArray(name, table)


def constant_bytes(plan: Plan) -> int:
    """Flash for the weights and what else learning reads; code comes on top."""
    return sum(array.values.nbytes for array in constant_arrays(plan))


def constant_files(plan: Plan, title: str, model_sha256: str) -> dict[str, str | bytes]:
    """File name -> content, in lib/pmeta_model/src."""
    arrays = list(constant_arrays(plan))
    common: dict[str, Any] = {"title": title, "model_sha256": model_sha256}
    header = render("model/pmeta_weights.h.j2", **common, arrays=[_declared(array) for array in arrays])
    if constant_bytes(plan) <= TEXT_LIMIT:
        text = render("model/pmeta_weights.c.j2", **common, arrays=[_as_text(array) for array in arrays])
        return {"pmeta_weights.h": header, "pmeta_weights.c": text}
    data = b"".join(array.values.astype("<f4").tobytes() for array in arrays)
    source = render(
        "model/pmeta_weights.S.j2", **common, data_sha256=sha256(data).hexdigest(), arrays=list(_with_offsets(arrays))
    )
    return {"pmeta_weights.h": header, "pmeta_weights.S": source, "pmeta_weights.bin": data}


def _declared(array: ConstantArray) -> dict[str, Any]:
    return {"identifier": array.identifier, "count": array.values.size, "shape": shape_text(array.values.shape)}


def _as_text(array: ConstantArray) -> dict[str, Any]:
    literals = [hex_float(value) for value in array.values.ravel().tolist()]
    rows = [", ".join(literals[n : n + FLOATS_PER_ROW]) for n in range(0, len(literals), FLOATS_PER_ROW)]
    return {**_declared(array), "rows": rows}


def _with_offsets(arrays: Sequence[ConstantArray]) -> Iterator[dict[str, Any]]:
    """What the assembler must know: where each array begins in the file, and how long it is."""
    offset = 0
    for array in arrays:
        yield {**_declared(array), "offset": offset, "bytes": array.values.nbytes}
        offset += array.values.nbytes
