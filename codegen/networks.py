"""The networks of the paper as graphs, 4Conv, ResNet12 and the MLP of its reinforcement learning, and some others.

Whoever needs one, to train it, to generate firmware for it or to count its bytes, takes it from here. Where a random
generator is given, weights are drawn: those of convolutions, and of fully connected layers that a ReLU follows, from
He's uniform distribution, those of the last layer from a uniform one of bound 1/√inputs; normalizations start as the
identity, biases at zero. Without a generator all weights are zero, which is enough where only sizes matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod, sqrt

import numpy as np

from pmeta.codegen.graph import Float32Array, Graph, Node, Shape, frozen_float32
from pmeta.codegen.operators import Add, Conv, Flatten, Gemm, GlobalAveragePool, GroupNorm, MaxPool, Relu, Window

IMAGE: Shape = (3, 84, 84)  # miniImageNet, as the paper's tables have it
RESNET12_CHANNELS = (64, 128, 256, 512)
SAME = Window((3, 3), pad_before=(1, 1), pad_after=(1, 1))
POINT = Window((1, 1))
HALVE = Window((2, 2), stride=(2, 2))
HALVE_ROW = Window((1, 2), stride=(1, 2))
EPSILON = float(np.float32(1e-5))  # of a GroupNormalization


def four_conv(
    input_shape: Shape = IMAGE,
    ways: int = 5,
    width: int = 32,
    groups: int = 8,
    rng: np.random.Generator | None = None,
    blocks: int = 4,
) -> Graph:
    """4Conv: `blocks` times conv 3×3 → GroupNorm → ReLU → max-pool 2×2, then a linear classifier; (C, H, W) → (ways,).

    Layers: conv1, norm1, ..., conv4, norm4, fc. The paper does not say how many groups; no figure depends on them.
    """
    build = _Builder(input_shape, rng)
    for n in range(1, blocks + 1):
        build.conv(f"conv{n}", width, SAME)
        build.group_norm(f"norm{n}", groups)
        build.relu(f"relu{n}")
        build.max_pool(f"pool{n}")
    build.classifier(ways)
    return build.graph("4conv")


def resnet12(
    input_shape: Shape = IMAGE,
    ways: int = 5,
    channels: Sequence[int] = RESNET12_CHANNELS,
    groups: int = 8,
    rng: np.random.Generator | None = None,
) -> Graph:
    """ResNet12: a residual block per entry of `channels`, the mean over all pixels, a classifier; (C, H, W) → (ways,).

    A block is three times conv 3×3 → GroupNorm, with a ReLU after the first and the second, beside a shortcut of
    conv 1×1 → GroupNorm; after their sum a ReLU and max-pool 2×2. Layers of block 1: block1.conv1, block1.norm1, ...,
    block1.norm3, block1.shortcut, block1.shortcut_norm; the last layer is fc.
    """
    build = _Builder(input_shape, rng)
    for n, width in enumerate(channels, start=1):
        _residual_block(build, f"block{n}", width, groups)
    build.global_average_pool("average")
    build.classifier(ways)
    return build.graph("resnet12")


def mlp(
    inputs: int | Shape = 20,
    hidden: Sequence[int] = (100, 100),
    outputs: int = 6,
    rng: np.random.Generator | None = None,
) -> Graph:
    """MLP: fully connected layers fc1, fc2, ... with bias, a ReLU after each but the last; (inputs,) → (outputs,).

    Maps are flattened before: then `inputs` is their shape (C, H, W). The defaults are the policy for HalfCheetah; the
    paper's 2-D navigation has two inputs and two outputs.
    """
    build = _Builder((inputs,) if isinstance(inputs, int) else inputs, rng)
    if len(build.input_shape) > 1:
        build.flatten()
    for n, features in enumerate(hidden, start=1):
        build.gemm(f"fc{n}", features)
        build.relu(f"relu{n}")
    build.gemm(f"fc{len(hidden) + 1}", outputs, last=True)
    return build.graph("mlp")


def conv1d(
    input_shape: Shape = (6, 1, 96),
    ways: int = 5,
    width: int = 32,
    groups: int = 8,
    rng: np.random.Generator | None = None,
    blocks: int = 3,
    kernel: int = 5,
) -> Graph:
    """For sensors: `blocks` times conv → GroupNorm → ReLU → max-pool over time, the mean over it, a classifier.

    Samples are maps of one row, (C, 1, L); each convolution reads `kernel` moments of all channels, each pooling halves
    their number. Layers: conv1, norm1, conv2, ..., fc.
    """
    same = Window((1, kernel), pad_before=(0, (kernel - 1) // 2), pad_after=(0, kernel // 2))
    build = _Builder(input_shape, rng)
    for n in range(1, blocks + 1):
        build.conv(f"conv{n}", width, same)
        build.group_norm(f"norm{n}", groups)
        build.relu(f"relu{n}")
        build.max_pool(f"pool{n}", HALVE_ROW)
    build.global_average_pool("average")
    build.classifier(ways)
    return build.graph("conv1d")


def three_conv(
    input_shape: Shape = (1, 28, 28), ways: int = 5, width: int = 16, rng: np.random.Generator | None = None
) -> Graph:
    """Three times conv 3×3 with bias → ReLU, max-pool 2×2 after the first two, a classifier.

    Not a network of the paper, but one that other frameworks for microcontrollers publish figures for.
    """
    build = _Builder(input_shape, rng)
    for n in range(1, 4):
        build.conv(f"conv{n}", width, SAME, bias=True)
        build.relu(f"relu{n}")
        if n < 3:
            build.max_pool(f"pool{n}")
    build.classifier(ways)
    return build.graph("3conv")


def _residual_block(build: _Builder, name: str, width: int, groups: int) -> None:
    block_input = build.position
    for n in (1, 2, 3):
        build.conv(f"{name}.conv{n}", width, SAME)
        build.group_norm(f"{name}.norm{n}", groups)
        if n < 3:
            build.relu(f"{name}.relu{n}")
    branch = build.position
    build.go_to(block_input)
    build.conv(f"{name}.shortcut", width, POINT)
    build.group_norm(f"{name}.shortcut_norm", groups)
    shortcut = build.position
    build.go_to(branch)
    build.add(f"{name}.add", shortcut)
    build.relu(f"{name}.relu3")
    build.max_pool(f"{name}.pool")


@dataclass
class _Builder:
    """Grows a graph node by node; weights are drawn in the order of the layers."""

    input_shape: Shape
    rng: np.random.Generator | None
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Float32Array] = field(default_factory=dict)
    position: tuple[str, Shape] = ("", ())  # the activation that the next node reads, and its shape

    def __post_init__(self) -> None:
        self.position = "input", self.input_shape

    def conv(self, name: str, filters: int, window: Window, bias: bool = False) -> None:
        fan_in = self.position[1][0] * prod(window.kernel)
        bias_name = f"{name}.bias" if bias else None
        node = Conv(name, self.position[0], f"{name}.out", f"{name}.weight", bias_name, filters, window)
        self._append(node, sqrt(6.0 / fan_in))

    def group_norm(self, name: str, groups: int) -> None:
        weight, bias = f"{name}.weight", f"{name}.bias"
        self._append(GroupNorm(name, self.position[0], f"{name}.out", weight, bias, groups, EPSILON))
        if self.rng is not None:
            self.weights[weight] = frozen_float32(np.ones(self.position[1][0]))

    def gemm(self, name: str, features: int, last: bool = False) -> None:
        fan_in = self.position[1][0]
        output = "logits" if last else f"{name}.out"
        node = Gemm(name, self.position[0], output, f"{name}.weight", f"{name}.bias", features)
        self._append(node, 1.0 / sqrt(fan_in) if last else sqrt(6.0 / fan_in))

    def classifier(self, ways: int) -> None:
        self.flatten()
        self.gemm("fc", ways, last=True)

    def flatten(self) -> None:
        self._append(Flatten("flatten", self.position[0], "flatten.out"))

    def relu(self, name: str) -> None:
        self._append(Relu(name, self.position[0], f"{name}.out"))

    def max_pool(self, name: str, window: Window = HALVE) -> None:
        self._append(MaxPool(name, self.position[0], f"{name}.out", window))

    def global_average_pool(self, name: str) -> None:
        self._append(GlobalAveragePool(name, self.position[0], f"{name}.out"))

    def add(self, name: str, other: tuple[str, Shape]) -> None:
        self._append(Add(name, self.position[0], f"{name}.out", other[0]))

    def go_to(self, position: tuple[str, Shape]) -> None:
        """The next node reads there: a branch."""
        self.position = position

    def graph(self, name: str) -> Graph:
        return Graph(name, "input", self.input_shape, tuple(self.nodes), self.weights)

    def _append(self, node: Node, bound: float = 0.0) -> None:
        """Append `node`; its first weight is drawn from ±`bound`, the other is zero."""
        shapes = dict(zip(node.weight_names, node.weight_shapes(self.position[1]), strict=True))
        self.weights |= {name: frozen_float32(np.zeros(shape)) for name, shape in shapes.items()}
        if shapes and bound and self.rng is not None:
            weight = node.weight_names[0]
            self.weights[weight] = frozen_float32(self.rng.uniform(-bound, bound, shapes[weight]))
        self.nodes.append(node)
        self.position = node.output, node.output_shape(self.position[1])
