"""A torch.nn.Module as a graph: torch.export records what it calls, and each call is said as an ONNX node.

Modules and functions (F.relu, +, torch.flatten) are alike. `pmeta.codegen.onnx_graph` reads the nodes as it reads a
file's, with all its knowledge of shapes, (C, L) samples and operators in other words.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from pmeta.codegen.errors import UnsupportedError
from pmeta.codegen.graph import Graph
from pmeta.codegen.modelfile import OPSET, network_of

# What to use instead of an operation that a graph cannot have, by a part of its name.
INSTEAD = {
    "batch_norm": "use GroupNorm: a device adapts to one sample at a time",
    "instance_norm": "use GroupNorm with as many groups as channels",
    "layer_norm": "use GroupNorm with one group",
    "softmax": "leave it out: the loss has it",
    "silu": "use Hardswish",
    "gelu": "use Hardswish or ReLU",
    "elu": "use LeakyReLU",
    "adaptive": "use pooling with a fixed window, or AdaptiveAvgPool with output size 1",
    "mul": "use a layer with weights",
}
OTHERWISE = "use Conv1d/2d, Linear, GroupNorm, ReLU/6, LeakyReLU, Hardswish, Sigmoid, Tanh, pooling, Flatten, + or cat"


def trace(module: nn.Module, example: Tensor, name: str = "network") -> Graph:
    """The graph of `module`, with its present weights. example: one sample, (1, C, H, W), (1, C, L) or (1, C).

    Nodes are called as the modules are: "features.0". Raises UnsupportedError and ModelError.
    """
    if len(example) != 1:
        raise ValueError(f"the example has {len(example)} samples, expected 1")
    try:
        exported = _exported(module, example)
    except Exception as error:  # whatever the module's own code may raise
        reason = str(error).strip().split("\n")[0]
        todo = "let it compute one tensor from one tensor, without branches that depend on numbers"
        raise UnsupportedError(f"cannot be traced ({reason})", f"module '{name}'", todo) from error
    if len(exported.graph_signature.user_outputs) != 1:
        raise UnsupportedError("has several outputs", f"module '{name}'", "return the logits alone")
    return network_of(_Export(exported).model(name, tuple(example.shape)), Path(name))


def _exported(module: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """What the module calls in evaluation mode."""
    training, silenced = module.training, logging.root.manager.disable
    logging.disable(logging.ERROR)  # of the exporter's own account of what it cannot trace
    try:
        with warnings.catch_warnings(action="ignore"):
            exported = torch.export.export(module.eval(), (example,), strict=False)
            # Only undoes what works in place, as nn.ReLU(inplace=True).
            decomposed: torch.export.ExportedProgram = exported.run_decompositions({})
            return decomposed
    finally:
        logging.disable(silenced)
        module.train(training)


@dataclass
class _Export:
    """An exported program as an ONNX model."""

    program: torch.export.ExportedProgram
    constants: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def model(self, name: str, input_shape: tuple[int, ...]) -> onnx.ModelProto:
        graph = self.program.graph
        calls = [node for node in graph.nodes if node.op == "call_function"]
        self._check_parameters(calls)
        nodes = [self._node(node, node_name) for node, node_name in zip(calls, _names(calls), strict=True)]
        (result,) = graph.output_node().args[0]
        output_shape = tuple(result.meta["val"].shape)
        (sample,) = self.program.graph_signature.user_inputs
        proto = helper.make_graph(
            nodes,
            name,
            [helper.make_tensor_value_info(sample, TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info(result.name, TensorProto.FLOAT, output_shape)],
            [numpy_helper.from_array(array, constant) for constant, array in self.constants.items()],
        )
        return helper.make_model(proto, opset_imports=[helper.make_opsetid("", OPSET)])

    def _check_parameters(self, calls: Sequence[fx.Node]) -> None:
        """A weight belongs to one layer: it has one step size and one gradient."""
        signature = self.program.graph_signature
        readers = Counter(argument.name for call in calls for argument in call.all_input_nodes)
        for placeholder, parameter in signature.inputs_to_parameters.items():
            if readers[placeholder] > 1:
                todo = "give each use a weight of its own"
                raise UnsupportedError(f"'{parameter}' is used twice", "traced module", todo)

    def _node(self, node: fx.Node, name: str) -> onnx.NodeProto:
        call = Call(node, name, self._input)
        if call.operation not in OPERATIONS:
            call.refuse(f"{call.operation} is not supported")
        op_type, inputs, attributes = OPERATIONS[call.operation](call)
        return helper.make_node(op_type, inputs, [node.name], name=name, **attributes)

    def _input(self, value: fx.Node | np.ndarray[Any, Any] | None, name: str) -> str:
        """What the ONNX node reads for an argument: an activation, a parameter by its own name, or a new constant."""
        if value is None:
            return ""
        if isinstance(value, np.ndarray):
            self.constants[name] = value
            return name
        signature = self.program.graph_signature
        known = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        if value.name not in known:
            return str(value.name)
        parameter: str = known[value.name]
        self.constants[parameter] = self.program.state_dict[parameter].detach().cpu().numpy()
        return parameter


def _names(calls: Sequence[fx.Node]) -> list[str]:
    """Each call's name: the place of PyTorch's own module that makes it, if that makes no other; else one below it."""
    places = [_place(call) for call in calls]
    calls_there = Counter(place for place, _ in places)
    return [
        place if is_leaf and calls_there[place] == 1 else f"{place}.{call.name}".lstrip(".")
        for call, (place, is_leaf) in zip(calls, places, strict=True)
    ]


def _place(call: fx.Node) -> tuple[str, bool]:
    """(dotted name of the module that a call is in, whether that is one of PyTorch's layers)."""
    modules = list(call.meta.get("nn_module_stack", {}).values())
    place, kind = modules[-1] if modules else ("", "")
    return place, str(kind).startswith("torch.nn.modules.") and "container" not in str(kind)


@dataclass(frozen=True)
class Call:
    """One call of an operation, its arguments by the names that PyTorch gives them."""

    node: fx.Node
    name: str
    as_input: Callable[[Any, str], str]

    @property
    def operation(self) -> str:
        """Without overload: "conv2d"."""
        packet = getattr(self.node.target, "overloadpacket", self.node.target)
        name = str(getattr(packet, "__name__", packet))
        return "batch_norm" if "batch_norm" in name else name  # which has names for every purpose

    def __getitem__(self, argument: str) -> Any:
        target: Any = self.node.target
        for position, declared in enumerate(target._schema.arguments):
            if declared.name == argument:
                if position < len(self.node.args):
                    return self.node.args[position]
                return self.node.kwargs.get(argument, declared.default_value)
        return None

    def inputs(self, *arguments: str) -> list[str]:
        return [self.as_input(self[argument], "") for argument in arguments]

    def constant(self, name: str, value: Any, dtype: type[Any]) -> str:
        """The name of a new constant; of none where `value` is None."""
        return self.as_input(None if value is None else np.array(value, dtype), f"{self.name}.{name}")

    def shape(self) -> tuple[int, ...]:
        """Of the result, with the batch dimension."""
        return tuple(self.node.meta["val"].shape)

    def refuse(self, what: str, todo: str | None = None) -> NoReturn:
        place, _ = _place(self.node)
        found = next((hint for part, hint in INSTEAD.items() if part in self.operation), OTHERWISE)
        raise UnsupportedError(what, f"module '{place}'" if place else f"call '{self.name}'", todo or found)


Written = tuple[str, list[str], dict[str, Any]]  # ONNX operator, inputs, attributes


def _same(op_type: str) -> Callable[[Call], Written]:
    """An operation without attributes that ONNX calls `op_type`."""
    return lambda call: (op_type, [call.as_input(call.node.args[0], "")], {})


def _conv(call: Call) -> Written:
    size = len(call.shape()) - 2
    padding = call["padding"]
    attributes: dict[str, Any] = {"strides": _each(call["stride"], size), "dilations": _each(call["dilation"], size)}
    if isinstance(padding, str):
        attributes["auto_pad"] = {"same": "SAME_UPPER", "valid": "VALID"}[padding]
    else:
        attributes["pads"] = _each(padding, size) * 2
    bias = ["bias"] if call["bias"] is not None else []
    return "Conv", call.inputs("input", "weight", *bias), attributes | {"group": call["groups"]}


def _linear(call: Call) -> Written:
    if len(call.shape()) != 2:
        call.refuse("it reads a map", "put Flatten before it")
    bias = ["bias"] if call["bias"] is not None else []
    return "Gemm", call.inputs("input", "weight", *bias), {"transB": 1}


def _group_norm(call: Call) -> Written:
    if call["weight"] is None or call["bias"] is None:
        call.refuse("GroupNorm without scale and shift", "use affine=True")
    attributes = {"num_groups": call["num_groups"], "epsilon": call["eps"]}
    return "GroupNormalization", call.inputs("input", "weight", "bias"), attributes


def _pool(op_type: str) -> Callable[[Call], Written]:
    def written(call: Call) -> Written:
        argument, size = ("self" if call["self"] is not None else "input"), len(call.shape()) - 2
        kernel = _each(call["kernel_size"], size)
        attributes: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": _each(call["stride"] or kernel, size),
            "pads": _each(call["padding"], size) * 2,
            "ceil_mode": int(call["ceil_mode"]),
        }
        if op_type == "MaxPool":
            attributes["dilations"] = _each(call["dilation"], size)
        else:
            attributes["count_include_pad"] = int(call["count_include_pad"])
            if call["divisor_override"]:
                call.refuse("divisor_override is not supported", "leave it out")
        return op_type, call.inputs(argument), attributes

    return written


def _global_average(call: Call) -> Written:
    if any(size != 1 for size in _each(call["output_size"], 1)):
        call.refuse(f"an output of {call['output_size']} is not supported")
    return "GlobalAveragePool", call.inputs("self"), {}


def _mean(call: Call) -> Written:
    axes = call.constant("axes", call["dim"], np.int64)
    return "ReduceMean", [*call.inputs("self"), axes], {"keepdims": int(call["keepdim"])}


def _view(call: Call) -> Written:
    return "Reshape", [call.as_input(call.node.args[0], ""), call.constant("shape", call.shape(), np.int64)], {}


def _clip(low: str, high: str) -> Callable[[Call], Written]:
    def written(call: Call) -> Written:
        bounds = [call.constant("max" if at == high else "min", call[at], np.float32) for at in (low, high)]
        return "Clip", [*call.inputs("self"), *bounds], {}

    return written


def _add(call: Call) -> Written:
    if not isinstance(call["other"], fx.Node) or call["alpha"] != 1:
        call.refuse("it adds a number", "add activations only; a number belongs to the bias of a layer")
    return "Add", call.inputs("self", "other"), {}


def _cat(call: Call) -> Written:
    return "Concat", [call.as_input(part, "") for part in call["tensors"]], {"axis": call["dim"] % len(call.shape())}


def _each(value: Any, size: int) -> list[int]:
    """A number for each of `size` axes: PyTorch takes one for all."""
    values = list(value) if isinstance(value, Sequence) else [value]
    return values if len(values) == size else values * size


_identity = _same("Identity")

OPERATIONS: dict[str, Callable[[Call], Written]] = {
    "adaptive_avg_pool1d": _global_average,
    "adaptive_avg_pool2d": _global_average,
    "add": _add,
    "alias": _identity,
    "avg_pool1d": _pool("AveragePool"),
    "avg_pool2d": _pool("AveragePool"),
    "cat": _cat,
    "clamp": _clip("min", "max"),
    "clone": _identity,
    "contiguous": _identity,
    "conv1d": _conv,
    "conv2d": _conv,
    "detach": _identity,
    "dropout": _identity,
    "flatten": _view,
    "group_norm": _group_norm,
    "hardswish": _same("HardSwish"),
    "hardtanh": _clip("min_val", "max_val"),
    "leaky_relu": lambda call: ("LeakyRelu", call.inputs("self"), {"alpha": call["negative_slope"]}),
    "linear": _linear,
    "max_pool1d": _pool("MaxPool"),
    "max_pool2d": _pool("MaxPool"),
    "mean": _mean,
    "relu": _same("Relu"),
    "reshape": _view,
    "sigmoid": _same("Sigmoid"),
    "squeeze": _view,
    "tanh": _same("Tanh"),
    "unsqueeze": _view,
    "view": _view,
}
