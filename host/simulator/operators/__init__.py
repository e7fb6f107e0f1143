"""The simulator's operators: one file each, by the class of the node they compute."""

from __future__ import annotations

from typing import Any

from pmeta.codegen.graph import Node
from pmeta.codegen.operators import Add, Concat, Conv, Flatten, Gemm, GroupNorm, LeakyRelu, MaxPool, Relu
from pmeta.host.simulator.operators.add import AddOperator
from pmeta.host.simulator.operators.concat import ConcatOperator
from pmeta.host.simulator.operators.conv import ConvOperator
from pmeta.host.simulator.operators.flatten import FlattenOperator
from pmeta.host.simulator.operators.gemm import GemmOperator
from pmeta.host.simulator.operators.group_norm import GroupNormOperator
from pmeta.host.simulator.operators.leaky_relu import LeakyReluOperator
from pmeta.host.simulator.operators.max_pool import MaxPoolOperator
from pmeta.host.simulator.operators.operator import LayerOperator, Operator
from pmeta.host.simulator.operators.relu import ReluOperator

SIMULATED_LAYERS: dict[type[Node], LayerOperator[Any, Any]] = {
    Conv: ConvOperator(),
    Gemm: GemmOperator(),
    GroupNorm: GroupNormOperator(),
}
SIMULATED: dict[type[Node], Operator[Any, Any]] = {
    **SIMULATED_LAYERS,
    Add: AddOperator(),
    Concat: ConcatOperator(),
    Flatten: FlattenOperator(),
    LeakyRelu: LeakyReluOperator(),
    MaxPool: MaxPoolOperator(),
    Relu: ReluOperator(),
}
