"""Constants of an ONNX file: tensors, Constant nodes, and what exporters compute from constants and from shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from pmeta.codegen.errors import ModelError
from pmeta.codegen.onnx_node import Constant, OnnxNode

MOST_SIZES = 64  # numbers in a tensor of sizes: more than any tensor has dimensions
MOST_COMPUTED = 4096  # numbers in a constant that is computed here, where its inputs do not bound it

Sizes = npt.NDArray[np.int64]


def constant_value(node: OnnxNode) -> Constant:
    """The value of a Constant node."""
    for key, kind in (("value_float", np.float32), ("value_floats", np.float32), ("value_int", np.int64)):
        if key in node.attributes:
            return np.array(node.attributes[key], kind)
    if "value_ints" in node.attributes:
        return np.array(node.attributes["value_ints"], np.int64)
    tensor = node.attributes.get("value")
    if not isinstance(tensor, onnx.TensorProto):
        raise node.unsupported("its value is not a tensor of numbers", "export with plain constants")
    return tensor_value(tensor, node.where)


def tensor_value(tensor: onnx.TensorProto, where: str) -> Constant:
    """A tensor of the file as a read-only array."""
    try:
        array = np.array(numpy_helper.to_array(tensor), order="C")
    except (ValueError, TypeError) as error:
        raise ModelError(f"the values of '{tensor.name}' are damaged", where, "export it again") from error
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ModelError(f"weight '{tensor.name}' has NaN or infinite values", where, "train it again")
    array.setflags(write=False)
    return array


def sizes_in(node: OnnxNode, position: int) -> Sizes:
    """Input number `position`: a constant, short list of integers, or one integer."""
    name = node.inputs[position] if position < len(node.inputs) else ""
    sizes = node.constants.get(name)
    if sizes is None or sizes.dtype != np.int64 or sizes.ndim > 1 or sizes.size > MOST_SIZES:
        raise node.unsupported(f"input {position} is no constant list of sizes", "export with fixed shapes")
    return sizes


def axes_of(node: OnnxNode) -> list[int] | None:
    """The axes that a node names, in an attribute or as its second input; None where it names none."""
    if len(node.inputs) > 1 and node.inputs[1]:
        return [int(axis) for axis in np.atleast_1d(sizes_in(node, 1))]
    axes = node.attributes.get("axes")
    return None if axes is None else [int(axis) for axis in axes]


# --- constants that are computed -----------------------------------------------------------------------------


def is_computed(node: OnnxNode) -> bool:
    """Whether `node` computes a constant, from constants only."""
    if node.op_type not in COMPUTED or not node.inputs:
        return False
    # CastLike asks for a type only: every activation is float32.
    asked = node.inputs[:1] if node.op_type == "CastLike" else node.inputs
    return all(name in node.constants for name in asked if name)


def computed(node: OnnxNode) -> Constant:
    """What it computes, as ONNX defines it."""
    values = [node.constants[name] for name in node.inputs if name in node.constants]
    try:
        with np.errstate(all="ignore"):
            result = COMPUTED[node.op_type](node, values)
    except (ValueError, IndexError, TypeError, ZeroDivisionError, OverflowError, KeyError) as error:
        raise node.unsupported("it does not fit its inputs", "export with fixed shapes") from error
    if result.size > max(MOST_COMPUTED, *(value.size for value in values)):
        raise _too_large(node)
    if result.dtype.kind == "f" and not np.isfinite(result).all():
        raise node.unsupported("it gives NaN or infinite values", "export with plain constants")
    result = np.array(result, order="C")
    result.setflags(write=False)
    return result


def _too_large(node: OnnxNode) -> ModelError:
    return node.unsupported("too many sizes", "export with fixed shapes")


def _bounded(node: OnnxNode, shape: Sequence[int]) -> tuple[int, ...]:
    """`shape`, if so many numbers may be computed."""
    if min(shape, default=1) < 0 or prod(int(size) for size in shape) > MOST_COMPUTED:
        raise _too_large(node)
    return tuple(int(size) for size in shape)


def _cast(node: OnnxNode, values: list[Constant]) -> Constant:
    return values[0].astype(helper.tensor_dtype_to_np_dtype(int(node.attributes["to"])))


def _cast_like(_: OnnxNode, values: list[Constant]) -> Constant:
    return values[0].astype(values[1].dtype if len(values) > 1 else np.float32)


def _constant_of_shape(node: OnnxNode, values: list[Constant]) -> Constant:
    value = node.attributes.get("value")
    filled = np.zeros(1, np.float32) if value is None else tensor_value(value, node.where)
    return np.full(_bounded(node, values[0].ravel().tolist()), filled.ravel()[0], filled.dtype)


def _quotient(a: Constant, b: Constant) -> Constant:
    """Of integers the whole part, towards zero."""
    if a.dtype.kind != "i":
        return np.asarray(a / b)
    if not np.all(b):
        raise ZeroDivisionError
    return np.trunc(a / b).astype(a.dtype)


def _elementwise(compute: Callable[[Constant, Constant], Any]) -> Callable[[OnnxNode, list[Constant]], Constant]:
    def result(node: OnnxNode, values: list[Constant]) -> Constant:
        if values[0].shape != values[1].shape:
            _bounded(node, np.broadcast_shapes(values[0].shape, values[1].shape))
        return np.asarray(compute(values[0], values[1]))

    return result


def _expanded(node: OnnxNode, values: list[Constant]) -> Constant:
    shape = np.broadcast_shapes(values[0].shape, _bounded(node, values[1].ravel().tolist()))
    return np.broadcast_to(values[0], _bounded(node, shape))


def _gathered(node: OnnxNode, values: list[Constant]) -> Constant:
    if values[0].size * values[1].size > MOST_COMPUTED * MOST_SIZES:
        raise _too_large(node)
    return np.asarray(np.take(values[0], values[1], axis=int(node.attributes.get("axis", 0))))


def _range(node: OnnxNode, values: list[Constant]) -> Constant:
    start, limit, step = (value.item() for value in values)
    _bounded(node, [max(0, int((limit - start) / step))])
    return np.arange(start, limit, step, dtype=values[0].dtype)


def _reshaped(node: OnnxNode, values: list[Constant]) -> Constant:
    target = [int(size) for size in values[1].ravel()]
    if not node.attributes.get("allowzero", 0):
        target = [values[0].shape[axis] if size == 0 else size for axis, size in enumerate(target)]
    return values[0].reshape(target)


def _sliced(_: OnnxNode, values: list[Constant]) -> Constant:
    data, starts, ends, *rest = values
    axes = rest[0] if rest else np.arange(starts.size)
    steps = rest[1] if len(rest) > 1 else np.ones(starts.size, np.int64)
    index = [slice(None)] * data.ndim
    for start, end, axis, step in zip(*(part.ravel().tolist() for part in (starts, ends, axes, steps)), strict=True):
        index[axis] = slice(start, None if step < 0 and end < -data.shape[axis] else end, step)
    return data[tuple(index)]


def _squeezed(node: OnnxNode, values: list[Constant]) -> Constant:
    axes = axes_of(node)
    return np.squeeze(values[0], None if axes is None else tuple(axes))


def _unsqueezed(node: OnnxNode, values: list[Constant]) -> Constant:
    return np.expand_dims(values[0], tuple(axes_of(node) or ()))


COMPUTED: Mapping[str, Callable[[OnnxNode, list[Constant]], Constant]] = {
    "Add": _elementwise(np.add),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": lambda node, values: np.concatenate(values, int(node.attributes["axis"])),
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_quotient),
    "Expand": _expanded,
    "Gather": _gathered,
    "Mul": _elementwise(np.multiply),
    "Range": _range,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Squeeze": _squeezed,
    "Sub": _elementwise(np.subtract),
    "Transpose": lambda node, values: np.transpose(values[0], node.attributes.get("perm")),
    "Unsqueeze": _unsqueezed,
}
