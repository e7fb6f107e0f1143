"""What ONNX files say in other words than the graph: pure functions from a node to a node with other constants.

Two kinds. `REWRITES` say one node as another one: MatMul as Gemm, InstanceNormalization as GroupNormalization, padding
by a rule as explicit pads. `FOLDS` merge a node into the layer before it, whose name stays: BatchNormalization, Add and
Mul of a constant. New constants are computed in float64 and rounded once; they are named after those they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pmeta.codegen.graph import Float32Array, Node, Shape
from pmeta.codegen.onnx_constants import sizes_in
from pmeta.codegen.onnx_node import Constant, OnnxNode
from pmeta.codegen.operators import Conv, Gemm, GroupNorm

WINDOWS = ("AveragePool", "Conv", "MaxPool")
TODO_CONSTANT = {"Add": "use the bias of the layer before it", "Mul": "scale the weights of the layer before it"}

Constants = Mapping[str, Constant]
Float64Array = npt.NDArray[np.float64]


# --- one node as another one ---------------------------------------------------------------------------------


def plain_gemm(node: OnnxNode, _: Shape) -> tuple[OnnxNode, Constants]:
    """Gemm with weights (F, C), a bias (F,) and without factors."""
    node.require({"transA": 0}, ("transB", "alpha", "beta"))
    alpha, beta = (float(node.attributes.get(key, 1.0)) for key in ("alpha", "beta"))
    weight = _constant(node, 1)
    new: dict[str, Constant] = {}
    plain = replace(node, attributes={"transB": 1})
    plain = _with_input(plain, 1, alpha * (weight if node.attributes.get("transB", 0) else weight.T), new)
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = _constant(node, 2)
        plain = _with_input(plain, 2, beta * (bias[0] if bias.ndim == 2 and len(bias) == 1 else bias), new)
    return plain, new


def gemm_of_matmul(node: OnnxNode, _: Shape) -> tuple[OnnxNode, Constants]:
    """MatMul with constant weights (C, F)."""
    node.require({})
    new: dict[str, Constant] = {}
    weight = _constant(node, 1)
    if weight.ndim != 2:
        raise node.unsupported(f"weights of shape {weight.shape}", "use weights of shape (inputs, outputs)")
    gemm = replace(node, op_type="Gemm", attributes={"transB": 1})
    return _with_input(gemm, 1, weight.T, new), new


def explicit_pads(node: OnnxNode, shape: Shape) -> tuple[OnnxNode, Constants]:
    """A window whose `auto_pad` is a rule, with the pads that follow from it for an input of `shape` (C, ...)."""
    rule = node.attributes.get("auto_pad", b"NOTSET")
    if rule == b"NOTSET":
        return (_without_ceil_mode(node, shape) if node.attributes.get("ceil_mode", 0) else node), {}
    attributes = {key: value for key, value in node.attributes.items() if key not in ("auto_pad", "pads")}
    if rule not in (b"SAME_UPPER", b"SAME_LOWER", b"VALID"):
        raise node.unsupported(f"auto_pad = {rule.decode()} is not supported", "export with explicit pads")
    if rule != b"VALID":
        sizes = shape[1:]
        kernel = node.weight_shape(1)[2:] if node.op_type == "Conv" else node.ints("kernel_shape", sizes)
        strides, dilations = _strides_and_dilations(node, sizes)
        if len(kernel) != len(sizes) or min((*kernel, *strides, *dilations), default=0) < 1:
            raise node.unsupported(f"the window does not fit a sample of {shape}", "export it again")
        windows = zip(sizes, kernel, strides, dilations, strict=True)
        totals = [max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n) for n, k, s, d in windows]
        smaller, larger = [total // 2 for total in totals], [-(-total // 2) for total in totals]
        attributes["pads"] = [*smaller, *larger] if rule == b"SAME_UPPER" else [*larger, *smaller]
    return replace(node, attributes=attributes), {}


def _without_ceil_mode(node: OnnxNode, shape: Shape) -> OnnxNode:
    """A pooling of `shape` (C, ...) that rounds the output's size up, with more padding at the end instead.

    Refused where the last window would see padding only: readers of ONNX disagree on whether there is one.
    """
    if node.attributes.get("count_include_pad", 0):
        what = "ceil_mode = 1 with count_include_pad = 1 is not supported"
        raise node.unsupported(what, "use one of them")
    sizes = shape[1:]
    kernel, (strides, dilations) = node.ints("kernel_shape", sizes), _strides_and_dilations(node, sizes)
    pads = node.ints("pads", (0,) * 2 * len(sizes))
    if min((*kernel, *strides, *dilations), default=0) < 1 or min(pads, default=0) < 0:
        raise node.unsupported(f"the window does not fit a sample of {shape}", "export it again")
    after = []
    windows = zip(sizes, kernel, strides, dilations, pads, pads[len(sizes) :], strict=False)
    for n, k, s, d, before, behind in windows:
        extent = d * (k - 1) + 1
        steps = -(-(n + before + behind - extent) // s)
        if steps * s >= n + before:
            raise node.unsupported("with ceil_mode = 1 its last window sees padding only", "use ceil_mode = 0")
        after.append(max(behind, steps * s + extent - n - before))
    return replace(node, attributes={**node.attributes, "ceil_mode": 0, "pads": [*pads[: len(sizes)], *after]})


def zero_pads(node: OnnxNode, shape: Shape) -> tuple[int, ...]:
    """The pads (all before, then all behind) that a Pad puts around the maps of a sample of `shape` (C, ...)."""
    node.require({"mode": "constant"})
    if node.number(2) or any(node.inputs[3:]):
        raise node.unsupported("it pads with other numbers than zeros, or names axes", "pad all axes with zeros")
    pads = sizes_in(node, 1).tolist()
    dimensions = len(shape) + 1
    ignored = pads[:2] + pads[dimensions : dimensions + 2]
    if len(pads) != 2 * dimensions or min(pads) < 0 or any(ignored):
        raise node.unsupported(f"pads {pads} do not fit a sample of {shape}", "pad rows and columns only")
    return (*pads[2:dimensions], *pads[dimensions + 2 :])


def with_pads(node: OnnxNode, added: tuple[int, ...]) -> OnnxNode:
    """A Conv that reads what was padded with zeros, padding it itself."""
    if node.op_type != "Conv" or node.attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise node.unsupported("it reads what a Pad writes", "only a Conv with explicit pads may follow a Pad")
    total = [own + more for own, more in zip(node.ints("pads", (0,) * len(added)), added, strict=True)]
    return replace(node, attributes={**node.attributes, "pads": total})


def _strides_and_dilations(node: OnnxNode, sizes: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return node.ints("strides", (1,) * len(sizes)), node.ints("dilations", (1,) * len(sizes))


def grouped_norm(node: OnnxNode, groups: int, channels: int) -> tuple[OnnxNode, Constants]:
    """InstanceNormalization of `groups` channels that are groups of `channels` in truth."""
    if channels % groups:
        raise node.unsupported(f"{groups} groups do not divide {channels} channels", "export it again")
    node, _ = group_norm_of_instance_norm(node, (groups,))
    new: dict[str, Constant] = {}
    for position in (1, 2):
        node = _with_input(node, position, np.repeat(_constant(node, position), channels // groups), new)
    return node, new


def group_norm_of_instance_norm(node: OnnxNode, shape: Shape) -> tuple[OnnxNode, Constants]:
    """InstanceNormalization: every channel is a group."""
    node.require({}, ("epsilon",))
    attributes = {**node.attributes, "num_groups": shape[0]}
    return replace(node, op_type="GroupNormalization", attributes=attributes), {}


def group_norm_of_layer_norm(node: OnnxNode, shape: Shape) -> tuple[OnnxNode, Constants]:
    """LayerNormalization over the whole sample, with one scale and one shift per channel: a single group."""
    node.require({"stash_type": 1}, ("axis", "epsilon"))
    if node.attributes.get("axis", -1) not in (1, -len(shape)):
        what = f"it normalizes a part of a sample of {shape}"
        raise node.unsupported(what, "normalize over channels and pixels, from axis 1 on")
    if any(node.outputs[1:]):
        raise node.unsupported("the outputs of its statistics are not supported", "export without them")
    new: dict[str, Constant] = {}
    attributes = {key: value for key, value in node.attributes.items() if key != "axis"} | {"num_groups": 1}
    result = replace(node, op_type="GroupNormalization", outputs=node.outputs[:1], attributes=attributes)
    result = _with_input(result, 1, _per_channel(node, 1, shape), new)
    if len(node.inputs) > 2 and node.inputs[2]:
        return _with_input(result, 2, _per_channel(node, 2, shape), new), new
    shift = unused_name(f"{node.name}.bias", node.constants)
    new[shift] = _rounded(node, np.zeros(shape[0]))
    return replace(result, inputs=(*result.inputs[:2], shift)), new


REWRITES: Mapping[str, Callable[[OnnxNode, Shape], tuple[OnnxNode, Constants]]] = {
    "AveragePool": explicit_pads,
    "Conv": explicit_pads,
    "Gemm": plain_gemm,
    "InstanceNormalization": group_norm_of_instance_norm,
    "LayerNormalization": group_norm_of_layer_norm,
    "MatMul": gemm_of_matmul,
    "MaxPool": explicit_pads,
}


def over_one_row(node: OnnxNode) -> tuple[OnnxNode, Constants]:
    """A node that reads (C, L) samples, as one that reads maps of one row, (C, 1, L)."""
    if node.op_type not in WINDOWS:
        return node, {}
    added = {"kernel_shape": [1], "strides": [1], "dilations": [1], "pads": [0]}
    attributes = dict(node.attributes)
    for key in added.keys() & attributes.keys():
        sizes = node.ints(key, (0,) * (2 if key == "pads" else 1))
        attributes[key] = [size for along in sizes for size in (*added[key], along)]
    node, new = replace(node, attributes=attributes), dict[str, Constant]()
    if node.op_type == "Conv":
        weight = _constant(node, 1)
        if weight.ndim != 3:
            raise node.unsupported(f"weights of shape {weight.shape}", "use a 1-D convolution")
        node = _with_input(node, 1, weight[:, :, None], new)
    return node, new


# --- a node as part of the layer before it -------------------------------------------------------------------


def fold_batch_normalization(node: OnnxNode, layer: Node | None, shape: Shape) -> tuple[Node, Constants]:
    """The layer with s·w and s·(b − mean) + shift, s = scale ÷ √(variance + ε).

    `layer` writes the (first) input of `node`, an activation of `shape`; None where no node does.
    """
    node.require({"training_mode": 0}, ("epsilon", "momentum"))
    if any(node.outputs[1:]):
        raise node.unsupported("it computes statistics, as in training", "export the network in evaluation mode")
    if not isinstance(layer, Conv | Gemm):
        what = "there is no Conv or Gemm right before it that it could be folded into"
        raise node.unsupported(what, "move it behind one, or use GroupNormalization")
    scale, shift, mean, variance = (_constant(node, position) for position in (1, 2, 3, 4))
    if {array.shape for array in (scale, shift, mean, variance)} != {shape[:1]}:
        raise node.unsupported(f"its constants do not fit an activation of {shape}", "export it again")
    weight = node.constants[layer.weight].astype(np.float64)
    bias = np.zeros(shape[0]) if layer.bias is None else node.constants[layer.bias].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # what is no number is refused
        factor = scale / np.sqrt(variance + float(node.attributes.get("epsilon", np.float32(1e-5))))
        folded = factor.reshape(-1, *[1] * (weight.ndim - 1)) * weight, factor * (bias - mean) + shift
    return _with_weights(node, layer, *folded)


def fold_added_constant(node: OnnxNode, layer: Node | None, shape: Shape) -> tuple[Node, Constants]:
    """The layer with the constant that `node` adds, one number per channel, as its bias or shift."""
    node.require({})
    position, added = _constant_per_channel(node, shape)
    if isinstance(layer, GroupNorm):
        scale, shift = (node.constants[name].astype(np.float64) for name in layer.weight_names)
        return _with_weights(node, layer, scale, shift + added)
    if not isinstance(layer, Conv | Gemm) or layer.bias is not None:
        raise node.unsupported(f"input {position} is a constant", TODO_CONSTANT[node.op_type])
    new: dict[str, Constant] = {}
    bias = _with_input(node, position, added, new).inputs[position]
    return replace(layer, bias=bias, output=node.outputs[0]), new


def fold_factor(node: OnnxNode, layer: Node | None, shape: Shape) -> tuple[Node, Constants]:
    """The layer with the constant that `node` multiplies with, one number per channel, as a factor of its weights."""
    node.require({})
    position, factor = _constant_per_channel(node, shape)
    if not isinstance(layer, Conv | Gemm | GroupNorm):
        raise node.unsupported(f"input {position} is a constant", TODO_CONSTANT[node.op_type])
    weight, *bias = (node.constants[name].astype(np.float64) for name in layer.weight_names)
    scaled = factor.reshape(-1, *[1] * (weight.ndim - 1)) * weight
    return _with_weights(node, layer, scaled, factor * bias[0] if bias else None)


FOLDS: Mapping[str, Callable[[OnnxNode, Node | None, Shape], tuple[Node, Constants]]] = {
    "Add": fold_added_constant,  # where it reads a constant
    "BatchNormalization": fold_batch_normalization,
    "Mul": fold_factor,  # where it reads a constant
}


def _constant_per_channel(node: OnnxNode, shape: Shape) -> tuple[int, Float64Array]:
    """(position, values (C,)) of the constant that `node` joins with an activation of `shape` (C, ...)."""
    position = next(n for n, name in enumerate(node.inputs) if name in node.constants)
    values = _constant(node, position)
    aligned = (*[1] * (len(shape) + 1 - values.ndim), *values.shape)
    if aligned != (1, shape[0], *[1] * (len(shape) - 1)):
        raise node.unsupported(f"input {position} is a constant", TODO_CONSTANT[node.op_type])
    return position, values.reshape(-1)


def _with_weights(
    node: OnnxNode, layer: Conv | Gemm | GroupNorm, weight: Float64Array, bias: Float64Array | None
) -> tuple[Node, Constants]:
    """The layer with other weights, writing what `node` writes."""
    names = [*layer.weight_names, f"{layer.name}.bias"]
    arrays = [weight] if bias is None else [weight, bias]
    new: dict[str, Constant] = {}
    for position, array in enumerate(arrays):
        names[position] = unused_name(names[position], {**node.constants, **new})
        new[names[position]] = _rounded(node, array)
    if isinstance(layer, GroupNorm):
        return replace(layer, scale=names[0], shift=names[1], output=node.outputs[0]), new
    return replace(layer, weight=names[0], bias=None if bias is None else names[1], output=node.outputs[0]), new


# --- constants -----------------------------------------------------------------------------------------------


def unused_name(name: str, constants: Constants) -> str:
    """`name`, or where a constant has it, one that tells where it comes from."""
    unused, number = name, 1
    while unused in constants:
        unused, number = f"{name}.pmeta{number}", number + 1
    return unused


def _constant(node: OnnxNode, position: int) -> Float64Array:
    """Input number `position`, which must be a float32 constant, in float64."""
    node.weight_shape(position)
    array = node.constants[node.inputs[position]]
    if array.dtype != np.float32:
        what = f"weight '{node.inputs[position]}' is {array.dtype} {array.shape}, expected float32"
        raise node.unsupported(what, "export in float32")
    return array.astype(np.float64)


def _rounded(node: OnnxNode, values: Float64Array) -> Float32Array:
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(array).all():
        raise node.unsupported("the weights that follow from it are not finite", "train it again")
    array.setflags(write=False)
    return array


def _with_input(node: OnnxNode, position: int, values: Float64Array, new: dict[str, Constant]) -> OnnxNode:
    """`node` with these values as input number `position`: where they are others than now, a constant of `new`."""
    name = node.inputs[position]
    if np.array_equal(node.constants[name], values):
        return node
    derived = unused_name(name, {**node.constants, **new})
    new[derived] = _rounded(node, values)
    return replace(node, inputs=(*node.inputs[:position], derived, *node.inputs[position + 1 :]))


def _per_channel(node: OnnxNode, position: int, shape: Shape) -> Float64Array:
    """(C,) of a constant that broadcasts to `shape` (C, ...) and is the same for all pixels of a channel."""
    values = _constant(node, position)
    if values.ndim > len(shape) or any(n not in (1, m) for n, m in zip(values.shape[::-1], shape[::-1], strict=False)):
        raise node.unsupported(f"input {position} of shape {values.shape} does not fit {shape}", "export it again")
    rows = np.broadcast_to(values, shape).reshape(shape[0], -1)
    if (rows != rows[:, :1]).any():
        what = f"input {position} differs from pixel to pixel"
        raise node.unsupported(what, "use one scale and shift per channel, as GroupNormalization has")
    return rows[:, 0]
