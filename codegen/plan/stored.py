"""Lowering of stored maps: how operators write and read rows in fewer bits (pmeta_rows.h, `pmeta.codegen.storage`)."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pmeta.codegen.graph import Shape
from pmeta.codegen.plan.program import Buffer, Role
from pmeta.codegen.storage import StoredType, row_elements

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering

_CTYPES: dict[StoredType, str] = {"float32": "float", "float16": "pmeta_float16", "int8": "pmeta_int8"}
_CONSTANTS = {"float": "PMETA_FLOAT32", "pmeta_float16": "PMETA_FLOAT16", "pmeta_int8": "PMETA_INT8"}
_SCALE_BYTES = 4  # in front of a row of int8


def type_constant(kept_as: StoredType) -> str:
    """The C constant of a type."""
    return _CONSTANTS[_CTYPES[kept_as]]


def row_type(buffer: Buffer) -> str:
    """The C constant that tells kernels how a buffer's rows are stored."""
    return _CONSTANTS[buffer.ctype]


def row_scratch(low: Lowering, suffix: str, size: int, *stored: Buffer) -> Buffer | None:
    """Room for one row of `size` elements; None where all of `stored` is float32, which is read where it lies."""
    if all(buffer.ctype == "float" for buffer in stored):
        return None
    return low.buffer(suffix, (size,), Role.SCRATCH)


def new_rows(low: Lowering, suffix: str, kept_as: StoredType, shape: Shape) -> Buffer:
    """A new buffer for the backward pass with the rows of `shape`, (C, ...) or (C,); in a loop the slice's part."""
    if kept_as == "int8":
        size = row_elements(shape)
        shape = (prod(shape) // size, _SCALE_BYTES + -(-size // 4) * 4)
    return low.buffer(suffix, shape, Role.STORE, _CTYPES[kept_as])


def keep(low: Lowering, suffix: str, x: Buffer, shape: Shape) -> tuple[Buffer, Buffer]:
    """Keep `x` of `shape` for the backward pass: (`x` as it is called from now on, what is kept).

    It is `x` itself where that loses nothing: the sample, float32 kept as such, a float16 map kept as that or more.
    """
    kept_as = low.storage.kept_as(shape)
    if _CTYPES[kept_as] == x.ctype or kept_as == "float32" or low.is_sample(x):
        held = low.hold(x)
        return (x if low.is_sample(x) else held), held
    size = row_elements(shape)
    kept = new_rows(low, suffix, kept_as, shape)
    row = row_scratch(low, f"{suffix}_row", size, x)
    count = prod(shape) // size
    low.call("pmeta_convert_rows", count, size, row_type(x), x, row, row_type(kept), kept, writes=[row, kept])
    return x, kept


def restored(low: Lowering, suffix: str, kept: Buffer, shape: Shape) -> Buffer:
    """What `keep` kept, as float32: the thing itself, or decoded; in a loop the current slice's part, of `shape`."""
    kept = low.part(kept)
    return kept if kept.ctype == "float" else _decoded(low, suffix, kept, shape)


def dense(low: Lowering, position: int, x: Buffer, shape: Shape) -> Buffer:
    """Input number `position` of the current node as float32."""
    return x if x.ctype == "float" else _decoded(low, f"x{position}", x, shape)


def _decoded(low: Lowering, suffix: str, rows: Buffer, shape: Shape) -> Buffer:
    size = row_elements(shape)
    x = low.buffer(suffix, shape, Role.MAP)
    low.call("pmeta_decode_rows", row_type(rows), prod(shape) // size, size, rows, x, writes=[x])
    return x


def finished(low: Lowering, y: Buffer) -> Buffer:
    """`y`, the output of the current node, as a finished map of the type asked for; in a loop the slice's part."""
    if low.storage.maps == "float32":
        return y
    shape = low.output_shape
    size = row_elements(shape)
    rows = low.part_of_slices(low.buffer("map", shape, Role.MAP, _CTYPES[low.storage.maps]))
    count = prod(shape) // size
    low.call("pmeta_convert_rows", count, size, row_type(y), y, None, row_type(rows), rows, writes=[rows])
    return rows
