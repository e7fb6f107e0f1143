"""What is measured: layers of many shapes, each in a small network of its own, and whole networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from benchmarks.plan import adapting
from pmeta.codegen.adaptation import AttentionModule, InputEncoding, LayerAttention, Model
from pmeta.codegen.graph import Graph, Shape, frozen_float32
from pmeta.codegen.modelfile import load_model
from pmeta.codegen.networks import four_conv, three_conv
from pmeta.codegen.operators import Window
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.plan.strategy import STRATEGIES
from tests.models import Chain

SHIPPED = Path(__file__).parents[2] / "models" / "icons-4conv-5way.onnx"
SAME = Window((3, 3), pad_before=(1, 1), pad_after=(1, 1))
POINT = Window((1, 1))
DIGITS: Shape = (1, 28, 28)


@dataclass(frozen=True)
class Case:
    """One network, and what is reported of it."""

    name: str
    model: Callable[[], Model]
    layers: tuple[str, ...] = ()  # whose kernel calls are reported, in step 1; "": also the calls that no node makes
    whole: bool = False  # steps and prediction, uninterrupted, and the bytes of code

    @cached_property
    def plan(self) -> Plan:
        """With whole maps where single calls are reported: their shapes are then those of the layers."""
        model = self.model()
        return make_plan(model) if self.whole else make_plan(model, STRATEGIES[:1])


def cases() -> tuple[Case, ...]:
    """All of them, in the order of the table."""
    return (*_convolutions(), *_fully_connected(), *_attention(), _others(), *_networks())


def _convolutions() -> Iterator[Case]:
    yield _conv("conv 3×3, 16→16, 14×14", (16, 14, 14), 16, SAME)
    yield _conv("conv 3×3, 1→32, 28×28, first layer", DIGITS, 32, SAME, first=True)
    for size in (14, 7, 3):
        yield _conv(f"conv 3×3, 32→32, {size}×{size}", (32, size, size), 32, SAME)
    yield _conv("conv 3×3, 3→32, 84×84, first layer", (3, 84, 84), 32, SAME, first=True)
    yield _conv("conv 1×1, 32→64, 14×14", (32, 14, 14), 64, POINT)
    yield _conv("conv 3×3 depthwise, 32, 14×14", (32, 14, 14), 32, SAME, groups=32)
    yield _conv("conv 3×3 stride 2, 32→32, 14×14", (32, 14, 14), 32, replace(SAME, stride=(2, 2)))
    five = Window((5, 5), pad_before=(2, 2), pad_after=(2, 2))
    yield _conv("conv 5×5, 16→16, 14×14", (16, 14, 14), 16, five)
    row = Window((1, 7), pad_before=(0, 3), pad_after=(0, 3))
    yield _conv("conv 1×7, 16→16, 1×96", (16, 1, 96), 16, row)


def _conv(name: str, shape: Shape, filters: int, window: Window, groups: int = 1, first: bool = False) -> Case:
    """Below it, unless it is the first layer, one that learns: so that it has an input gradient."""

    def model() -> Model:
        chain = Chain(np.random.default_rng(0), shape)
        if not first:
            chain.add_conv(shape[0], POINT, bias=False, groups=shape[0])
        chain.add_conv(filters, window, bias=False, groups=groups)
        chain.add_global_average_pool()
        chain.add_flatten()
        chain.add_gemm(5, bias=True)
        return _float_samples(adapting(chain.graph("conv"), None, steps=1))

    return Case(name, model, ("conv1" if first else "conv2",))


def _fully_connected() -> Iterator[Case]:
    for shape, features in (((16, 7, 7), 5), ((256, 1, 1), 64)):
        yield _fc(shape, features)


def _fc(shape: Shape, features: int) -> Case:
    def model() -> Model:
        chain = Chain(np.random.default_rng(0), shape)
        chain.add_conv(shape[0], POINT, bias=False, groups=shape[0])
        chain.add_flatten()
        chain.add_gemm(features, bias=True)
        if features != 5:
            chain.add_relu()
            chain.add_gemm(5, bias=True)
        return _float_samples(adapting(chain.graph("fc"), None, steps=1))

    return Case(f"fc {int(np.prod(shape))}→{features}", model, ("fc1",))


def _attention() -> Iterator[Case]:
    """A convolution in whose input and output channels attention chooses, half of which it keeps."""
    for channels in (32, 64):
        yield _attended(channels)


def _attended(channels: int) -> Case:
    def model() -> Model:
        chain = Chain(np.random.default_rng(0), (channels, 7, 7))
        chain.add_conv(channels, POINT, bias=False, groups=channels)
        chain.add_conv(channels, SAME, bias=False)
        chain.add_global_average_pool()
        chain.add_flatten()
        chain.add_gemm(5, bias=True)
        plain = _float_samples(adapting(chain.graph("attended"), None, steps=1))
        modules = {"conv2": LayerAttention(_indifferent(channels), _indifferent(channels))}
        return replace(plain, adaptation=replace(plain.adaptation, attention=modules, rho_fw=500, rho_bw=500))

    return Case(f"attention, {channels} channels, conv 3×3, 7×7", model, ("conv2",))


def _indifferent(channels: int) -> AttentionModule:
    """It scores all channels alike, so that as many are kept as ever can be."""
    matrix, vector = frozen_float32(np.zeros((channels, channels))), frozen_float32(np.zeros(channels))
    return AttentionModule(matrix, vector, matrix, vector)


def _others() -> Case:
    """Normalization, activation and pooling at the shapes of 4Conv, and what is not part of a layer."""
    names = [f"{kind}{n}" for n in (1, 2) for kind in ("norm", "relu", "pool")]
    return Case("4Conv-32, 28×28, layers", four_conv_model, (*names, "fc", ""))


def _networks() -> Iterator[Case]:
    yield Case("3 conv, 16 filters, 28×28", _three_conv, whole=True)
    yield Case("4Conv-32, 28×28", four_conv_model, whole=True)
    yield Case("icons-4conv-5way.onnx", lambda: load_model(SHIPPED), whole=True)


def _three_conv() -> Model:
    """For comparison with other frameworks, which take float samples."""
    return _float_samples(adapting(_drawn(three_conv), None, steps=1))


def four_conv_model() -> Model:
    """4Conv-32 on 28×28 pixels, all of which learns."""
    return adapting(_drawn(four_conv), None, steps=1)


def _drawn(network: Callable[..., Graph]) -> Graph:
    return network(DIGITS, rng=np.random.default_rng(0))


def _float_samples(model: Model) -> Model:
    return replace(model, adaptation=replace(model.adaptation, encoding=InputEncoding("float32")))
