"""The operators pmeta generates: one file each (how to add one: docs/adding-an-operator.md)."""

from __future__ import annotations

from pmeta.codegen.graph import Node
from pmeta.codegen.operators.add import Add
from pmeta.codegen.operators.average_pool import AveragePool
from pmeta.codegen.operators.clip import Clip
from pmeta.codegen.operators.concat import Concat
from pmeta.codegen.operators.conv import Conv
from pmeta.codegen.operators.flatten import Flatten
from pmeta.codegen.operators.gemm import Gemm
from pmeta.codegen.operators.global_average_pool import GlobalAveragePool
from pmeta.codegen.operators.group_norm import GroupNorm
from pmeta.codegen.operators.hard_swish import HardSwish
from pmeta.codegen.operators.leaky_relu import LeakyRelu
from pmeta.codegen.operators.max_pool import MaxPool
from pmeta.codegen.operators.relu import Relu
from pmeta.codegen.operators.sigmoid import Sigmoid
from pmeta.codegen.operators.tanh import Tanh
from pmeta.codegen.operators.window import Window

# By ONNX operator name.
OPERATORS: dict[str, type[Node]] = {
    "Add": Add,
    "AveragePool": AveragePool,
    "Clip": Clip,
    "Concat": Concat,
    "Conv": Conv,
    "Flatten": Flatten,
    "Gemm": Gemm,
    "GlobalAveragePool": GlobalAveragePool,
    "GroupNormalization": GroupNorm,
    "HardSwish": HardSwish,
    "LeakyRelu": LeakyRelu,
    "MaxPool": MaxPool,
    "Relu": Relu,
    "Sigmoid": Sigmoid,
    "Tanh": Tanh,
}

__all__ = [
    "OPERATORS",
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Conv",
    "Flatten",
    "Gemm",
    "GlobalAveragePool",
    "GroupNorm",
    "HardSwish",
    "LeakyRelu",
    "MaxPool",
    "Relu",
    "Sigmoid",
    "Tanh",
    "Window",
]
