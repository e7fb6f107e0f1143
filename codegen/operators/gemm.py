"""Gemm: a fully connected layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Node, Shape
from pmeta.codegen.onnx_node import OnnxNode
from pmeta.codegen.operators.weight_gradient import bias_gradient, gamma_bw, prepare_weight_gradient
from pmeta.codegen.plan.program import Buffer, Role, ShapeConstants
from pmeta.codegen.plan.stored import restored

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


@dataclass(frozen=True)
class Gemm(Node):
    """y[f] = b[f] + Σ_c w[f,c]·x[c]."""

    weight: str  # name of w, (F, C)
    bias: str | None  # name of b, (F,)
    features: int  # F

    @property
    def weight_names(self) -> tuple[str, ...]:
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    def weight_shapes(self, input_shape: Shape) -> tuple[Shape, ...]:
        shapes: tuple[Shape, ...] = ((self.features, input_shape[0]), (self.features,))
        return shapes[: len(self.weight_names)]

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ModelError(f"needs a vector, got {input_shape}", f"node '{self.name}'", "put a Flatten before it")
        return (self.features,)

    def forward_macs(self, input_shape: Shape) -> int:
        return self.features * input_shape[0]

    @classmethod
    def from_onnx(cls, node: OnnxNode) -> Gemm:
        node.require({"alpha": 1.0, "beta": 1.0, "transA": 0}, ("transB",))
        if node.attributes.get("transB", 0) != 1:
            raise node.unsupported("transB = 0 is not supported, only 1", "export a torch.nn.Linear")
        bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else None
        return cls(node.name, node.inputs[0], node.outputs[0], node.inputs[1], bias, node.weight_shape(1)[0])

    def to_onnx(self) -> OnnxNode:
        inputs = (self.input, *self.weight_names)
        return OnnxNode("Gemm", self.name, inputs, (self.output,), {"transB": 1}, {})

    def shape_constants(self, input_shape: Shape) -> ShapeConstants:
        return ShapeConstants("pmeta_gemm_shape", {"channels": input_shape[0], "features": self.features})

    def lower_prologue(self, low: Lowering, x: Buffer) -> None:
        prepare_weight_gradient(low, x)

    def lower_forward(self, low: Lowering, x: Buffer) -> Buffer:
        y = low.buffer("y", low.output_shape, Role.MAP)
        bias = low.weight(self.bias) if self.bias else None
        low.call("pmeta_gemm_forward", low.shape_constant(), x, low.weight(self.weight), bias, y, writes=[y])
        return y

    def lower_weight_gradient(self, low: Lowering, g: Buffer) -> None:
        if low.learns("weight"):
            stored, grad = low.noted("stored"), low.accumulator(self.weight)
            x = restored(low, "x", stored.x, stored.shape)
            shape = low.shape_constant()
            low.call("pmeta_gemm_weight_gradient", shape, stored.kept, x, g, gamma_bw(low), grad, writes=[grad])
        if self.bias and low.learns("bias"):
            bias_gradient(low, self.bias, g)

    def lower_input_gradient(self, low: Lowering, g: Buffer) -> Buffer:
        gx = low.buffer("gx", low.input_shape, Role.GRADIENT)
        low.call("pmeta_gemm_input_gradient", low.shape_constant(), low.weight(self.weight), g, gx, writes=[gx])
        return gx
