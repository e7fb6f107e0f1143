"""The simulator's operators: one file each, by the variant of the numerics and the class of the node they compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pmeta.codegen.adaptation import LossHead
from pmeta.codegen.graph import Float32Array, Node
from pmeta.codegen.numerics import HELIUM, STRICT, Numerics
from pmeta.codegen.operators import (
    Add,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Flatten,
    Gemm,
    GlobalAveragePool,
    GroupNorm,
    HardSwish,
    LeakyRelu,
    MaxPool,
    Relu,
    Sigmoid,
    Tanh,
)
from pmeta.host.simulator.operators import mean_squared_error, softmax_cross_entropy
from pmeta.host.simulator.operators.add import AddOperator
from pmeta.host.simulator.operators.average_pool import AveragePoolOperator
from pmeta.host.simulator.operators.clip import ClipOperator
from pmeta.host.simulator.operators.concat import ConcatOperator
from pmeta.host.simulator.operators.conv import ConvOperator, HeliumConvOperator
from pmeta.host.simulator.operators.flatten import FlattenOperator
from pmeta.host.simulator.operators.gemm import GemmOperator
from pmeta.host.simulator.operators.global_average_pool import GlobalAveragePoolOperator
from pmeta.host.simulator.operators.group_norm import GroupNormOperator
from pmeta.host.simulator.operators.hard_swish import HardSwishOperator
from pmeta.host.simulator.operators.leaky_relu import LeakyReluOperator
from pmeta.host.simulator.operators.max_pool import MaxPoolOperator
from pmeta.host.simulator.operators.operator import LayerOperator, Operator
from pmeta.host.simulator.operators.relu import ReluOperator
from pmeta.host.simulator.operators.sigmoid import SigmoidOperator
from pmeta.host.simulator.operators.tanh import TanhOperator

_LAYERS: Mapping[type[Node], LayerOperator[Any, Any]] = {
    Conv: ConvOperator(),
    Gemm: GemmOperator(),
    GroupNorm: GroupNormOperator(),
}
_OTHERS: Mapping[type[Node], Operator[Any, Any]] = {
    Add: AddOperator(),
    AveragePool: AveragePoolOperator(),
    Clip: ClipOperator(),
    Concat: ConcatOperator(),
    Flatten: FlattenOperator(),
    GlobalAveragePool: GlobalAveragePoolOperator(),
    HardSwish: HardSwishOperator(),
    LeakyRelu: LeakyReluOperator(),
    MaxPool: MaxPoolOperator(),
    Relu: ReluOperator(),
    Sigmoid: SigmoidOperator(),
    Tanh: TanhOperator(),
}
SIMULATED_LAYERS: Mapping[Numerics, Mapping[type[Node], LayerOperator[Any, Any]]] = {
    STRICT: _LAYERS,
    HELIUM: {**_LAYERS, Conv: HeliumConvOperator()},
}
SIMULATED: Mapping[Numerics, Mapping[type[Node], Operator[Any, Any]]] = {
    numerics: {**layers, **_OTHERS} for numerics, layers in SIMULATED_LAYERS.items()
}
SIMULATED_LOSSES: Mapping[LossHead, Callable[[Float32Array, Any], tuple[np.float32, Float32Array]]] = {
    "softmax_cross_entropy": softmax_cross_entropy.loss_and_gradient,
    "mean_squared_error": mean_squared_error.loss_and_gradient,
}
