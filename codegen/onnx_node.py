"""A checked view of one ONNX node, so that operators read attributes without touching protobuf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from pmeta.codegen.errors import UnsupportedError

Constant = npt.NDArray[Any]


@dataclass(frozen=True)
class OnnxNode:
    """One node of an ONNX graph: names as in the file, attributes as Python values."""

    op_type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[str, Constant]  # by name: when read all of the file, when written what the node brings along

    @classmethod
    def from_proto(cls, proto: onnx.NodeProto, index: int, constants: Mapping[str, Constant]) -> OnnxNode:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in proto.attribute}
        name = proto.name or f"{proto.op_type}_{index}"
        return cls(proto.op_type, name, tuple(proto.input), tuple(proto.output), attributes, constants)

    @property
    def where(self) -> str:
        return f"node '{self.name}' ({self.op_type})"

    def unsupported(self, what: str, todo: str) -> UnsupportedError:
        return UnsupportedError(what, self.where, todo)

    def require(self, defaults: Mapping[str, Any], allowed: Sequence[str] = ()) -> None:
        """Refuse attributes that are neither in `allowed` nor at the one value that is supported."""
        for key, value in self.attributes.items():
            if key in allowed:
                continue
            if key not in defaults:
                raise self.unsupported(f"attribute '{key}' is not supported", "export without it")
            plain = value.decode() if isinstance(value, bytes) else value
            if plain != defaults[key]:
                raise self.unsupported(f"{key} = {plain} is not supported, only {defaults[key]}", "change the layer")

    def ints(self, key: str, default: Sequence[int]) -> tuple[int, ...]:
        """An integer-list attribute, of the default's length."""
        value = tuple(int(v) for v in self.attributes.get(key, default))
        if len(value) != len(default):
            raise self.unsupported(
                f"{key} has {len(value)} values, expected {len(default)}", "use as many as the sample has dimensions"
            )
        return value

    def weight_shape(self, position: int) -> tuple[int, ...]:
        """Shape of the initializer that input number `position` names."""
        if position >= len(self.inputs) or self.inputs[position] not in self.constants:
            raise self.unsupported(f"input {position} is not a constant of the model", "export with constant weights")
        shape = self.constants[self.inputs[position]].shape
        if not shape:
            raise self.unsupported(f"input {position} is a single number", "export weights of the operator's shape")
        return shape

    def number(self, position: int) -> float | None:
        """The float32 constant that input number `position` names; None where the node has no such input."""
        name = self.inputs[position] if position < len(self.inputs) else ""
        if not name:
            return None
        value = self.constants.get(name)
        if value is None or value.dtype != np.float32 or value.size != 1:
            raise self.unsupported(f"input {position} is not one constant number", "export with a constant float32")
        return float(value.item())
