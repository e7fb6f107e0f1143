"""Nodes of an ONNX file that give the same numbers, in the same order, another shape.

The shapes are per sample, as the file has them: (C, H, W), (C, L) of one dimension less, (C,), or any other on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from pmeta.codegen.graph import Shape
from pmeta.codegen.onnx_constants import axes_of, sizes_in
from pmeta.codegen.onnx_node import OnnxNode

BATCH_AS_IT_IS = (0, -1)  # ONNX: copied from the input, or what is left for it


def _reshaped(node: OnnxNode, before: Shape, batch: int | None) -> Shape:
    """Per-sample shape that a Reshape asks for."""
    target = [int(size) for size in np.atleast_1d(sizes_in(node, 1))]
    if node.attributes.get("allowzero", 0) and 0 in target:
        raise node.unsupported(f"the shape {target} is empty", "export without allowzero")
    if not target or target[0] not in (*BATCH_AS_IT_IS, batch or 1):
        raise node.unsupported(f"the shape {target} mixes samples", "keep the first dimension as it is")
    sizes = [before[axis] if size == 0 and axis < len(before) else size for axis, size in enumerate(target[1:])]
    known = prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and target[0] != -1 and known > 0:
        sizes[sizes.index(-1)] = prod(before) // known
    if min(sizes, default=1) < 1 or prod(sizes) != prod(before):
        raise node.unsupported(f"the shape {target} does not fit a sample of {before}", "keep samples apart")
    return tuple(sizes)


def _transposed(node: OnnxNode, before: Shape, _: int | None) -> Shape:
    """Per-sample shape after a Transpose, which may only move dimensions of size 1."""
    axes = range(len(before) + 1)
    order = [int(axis) for axis in node.attributes.get("perm", reversed(axes))]
    if sorted(order) != list(axes):
        raise node.unsupported(f"perm = {order} does not fit a sample of {before}", "export it again")
    moved = [axis for axis in order if axis == 0 or before[axis - 1] > 1]
    if order[0] != 0 or moved != sorted(moved):
        raise node.unsupported(f"perm = {order} moves elements of a sample of {before}", "leave the order as it is")
    return tuple(before[axis - 1] for axis in order[1:])


def _flattened(node: OnnxNode, before: Shape, _: int | None) -> Shape:
    node.require({"axis": 1})
    return (prod(before),)


def _squeezed(node: OnnxNode, before: Shape, _: int | None) -> Shape:
    """Per-sample shape without some dimensions of size 1."""
    axes = axes_of(node)
    if axes is None:
        raise node.unsupported("it squeezes all dimensions, the samples' too, if there is one", "name the dimensions")
    dropped = _axes_of_sample(node, axes, len(before) + 1)
    if any(before[axis - 1] != 1 for axis in dropped):
        raise node.unsupported(f"squeezes axes {axes} of a sample of {before}", "squeeze dimensions of size 1 only")
    return tuple(size for axis, size in enumerate(before, start=1) if axis not in dropped)


def _unsqueezed(node: OnnxNode, before: Shape, _: int | None) -> Shape:
    axes = axes_of(node) or []
    added = _axes_of_sample(node, axes, len(before) + 1 + len(axes))
    rest = iter(before)
    return tuple(1 if axis in added else next(rest) for axis in range(1, len(before) + len(added) + 1))


def _axes_of_sample(node: OnnxNode, axes: list[int], dimensions: int) -> set[int]:
    """Axes counted from the front, the samples' own (0) not among them."""
    found = {axis + dimensions if axis < 0 else axis for axis in axes}
    if len(found) < len(axes) or not all(0 < axis < dimensions for axis in found):
        raise node.unsupported(f"the axes {axes} do not fit a sample", "leave the first dimension as it is")
    return found


def reduced_axes(node: OnnxNode, before: Shape) -> set[int]:
    """The axes over which a reduction goes; they must be all pixels of each channel, or dimensions of size 1."""
    axes = axes_of(node)
    if axes is None:
        raise node.unsupported("it reduces all axes, the samples' too", "reduce the pixels of each channel")
    found = _axes_of_sample(node, axes, len(before) + 1)
    if 1 in found or any(size != 1 for axis, size in enumerate(before, start=1) if axis > 1 and axis not in found):
        what = f"it reduces axes {axes} of a sample of {before}"
        raise node.unsupported(what, "reduce all pixels of each channel, and nothing else")
    return found


VIEWS: Mapping[str, Callable[[OnnxNode, Shape, int | None], Shape]] = {
    "Flatten": _flattened,
    "Reshape": _reshaped,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
