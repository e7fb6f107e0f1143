"""Models and samples for tests, drawn from a seed: a 4Conv as in the paper, and what other networks are built with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.plan import adapting
from pmeta.codegen.adaptation import (
    Adaptation,
    AttentionModule,
    InputEncoding,
    LayerAttention,
    Model,
    UpdatedPart,
)
from pmeta.codegen.graph import Float32Array, Graph, Node, Shape, frozen_float32
from pmeta.codegen.networks import three_conv
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
    Window,
)
from pmeta.codegen.storage import Storage

SampleKind = Literal["ordinary", "coarse", "special"]
EPSILON = float(np.float32(1e-5))
SPECIAL = (0.0, -0.0, 1e-45, -1e-39, 3e38, -3e38, np.inf, -np.inf, np.nan)
BOTH: tuple[UpdatedPart, ...] = ("weight", "bias")


def random_4conv(
    seed: int,
    width: int = 8,
    ways: int = 5,
    steps: int = 3,
    attention: bool = True,
    alpha: npt.ArrayLike = 0.05,  # broadcast to (9, steps)
    rho: tuple[int, int] = (300, 300),  # ρ^fw, ρ^bw in thousandths
    size: tuple[int, int, int] = (1, 28, 28),
    groups: int = 4,
) -> Model:
    """Four blocks of conv 3×3 → GN → ReLU → pool 2×2 and a fully connected layer, with random weights."""
    rng = np.random.default_rng(seed)
    chain = Chain(rng, size)
    for _ in range(4):
        chain.add_conv(width, Window((3, 3), pad_before=(1, 1), pad_after=(1, 1)), bias=False)
        chain.add_group_norm(groups)
        chain.add_relu()
        chain.add_max_pool(Window((2, 2), stride=(2, 2)))
    chain.add_flatten()
    chain.add_gemm(ways, bias=True)
    graph = chain.graph(f"random-4conv-{seed}")
    layers = graph.layers
    adaptation = Adaptation(
        method="p-meta",
        ways=ways,
        shots=5,
        alpha=frozen_float32(np.broadcast_to(np.asarray(alpha, np.float32), (len(layers), steps))),
        updates=(BOTH,) * len(layers),
        rho_fw=rho[0],
        rho_bw=rho[1],
        encoding=uint8_encoding(rng, size[0]),
        attention={layer.name: layer_attention(rng, graph, layer, 1.0) for layer in layers[:-1]} if attention else {},
    )
    return Model(graph, adaptation)


def as_pytorch(model: Model) -> Model:
    """The same model as plain PyTorch adapts it: nothing is rounded when it is stored, attention sees one sample."""
    return replace(model, adaptation=replace(model.adaptation, storage=Storage(), sample_batch=1))


def with_batch(model: Model, count: int) -> Model:
    """The same model in micro-batches."""
    return replace(model, adaptation=replace(model.adaptation, sample_batch=count))


def with_storage(model: Model, storage: Storage) -> Model:
    """The same model, its numbers stored otherwise."""
    return replace(model, adaptation=replace(model.adaptation, storage=storage))


def with_encoding(model: Model, encoding: InputEncoding) -> Model:
    """The same model, whose samples travel otherwise."""
    return replace(model, adaptation=replace(model.adaptation, encoding=encoding))


def regression(model: Model) -> Model:
    """The same model, but it learns numbers."""
    return Model(model.graph, replace(model.adaptation, loss="mean_squared_error"))


def faint(size: int) -> Model:
    """Three convolutions without normalization, of which the first gives numbers as small as normal ones can be.

    So the variants of the numerics give different logits. Samples are (1, size, size), of 3 ways.
    """
    graph = three_conv((1, size, size), 3, 8, np.random.default_rng(2))
    scales = {"conv1": 2.0**-122, "conv2": 2.0**60, "fc": 2.0**62}
    weights = {name: array * np.float32(scales.get(name.split(".")[0], 1)) for name, array in graph.weights.items()}
    return adapting(replace(graph, weights=weights), ("conv3", "fc"), steps=2)


def random_samples(
    model: Model, seed: int, count: int, kind: SampleKind = "ordinary"
) -> tuple[npt.NDArray[np.generic], npt.NDArray[Any]]:
    """(samples, targets): samples (count, *input shape) in the model's wire encoding; labels that cover every way.

    A model that learns numbers gets (count, ways) float32 instead of labels.

    Each class has a pattern of its own under noise, so that adaptation has something to learn. Coarse samples have few
    different values, so that many are equal; special ones (of float32) also have infinities, NaNs and subnormals.
    """
    rng = np.random.default_rng(seed)
    shape, ways = model.graph.input_shape, model.adaptation.ways
    labels = rng.permutation(np.arange(count) % ways)
    patterns = np.random.default_rng(0).normal(size=(ways, *shape))
    values = patterns[labels] + 0.7 * rng.normal(size=(count, *shape))
    if kind == "coarse":
        values = np.round(values)
    if model.adaptation.encoding.kind == "uint8":
        samples: npt.NDArray[np.generic] = np.clip(128 + 48 * values, 0, 255).astype(np.uint8)
    else:
        samples = values.astype(np.float32)
    if kind == "special" and samples.dtype == np.float32:
        chosen = rng.random(samples.shape) < 0.1
        samples[chosen] = rng.choice(np.array(SPECIAL, np.float32), int(chosen.sum()))
    if model.adaptation.regression:
        return samples, (np.eye(ways)[labels] + 0.1 * rng.normal(size=(count, ways))).astype(np.float32)
    return samples, labels


# --- graphs --------------------------------------------------------------------------------------------------


@dataclass
class Chain:
    """Grows a graph node by node, from `position` on, and draws each layer's weights."""

    rng: np.random.Generator
    shape: Shape  # of the sample
    coarse: bool = False  # weights are multiples of 1/4: many sums are equal, or zero
    nodes: list[Node] = field(default_factory=list)
    weights: dict[str, Float32Array] = field(default_factory=dict)
    source: str = "x"  # the activation that the next node reads
    current: Shape = ()  # its shape
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.current = self.shape

    def add_conv(self, filters: int, window: Window, bias: bool, groups: int = 1) -> None:
        name, source, target = self._names("conv")
        node = Conv(name, source, target, f"{name}.weight", f"{name}.bias" if bias else None, filters, window, groups)
        fan_in = self.current[0] // groups * int(np.prod(window.kernel))
        self._append(node, spreads=((2 / fan_in) ** 0.5, 0.1))

    def add_gemm(self, features: int, bias: bool) -> None:
        name, source, target = self._names("fc")
        node = Gemm(name, source, target, f"{name}.weight", f"{name}.bias" if bias else None, features)
        fan_in = self.current[0]
        self._append(node, spreads=((1 / fan_in) ** 0.5, 0.1))

    def add_group_norm(self, groups: int) -> None:
        name, source, target = self._names("norm")
        node = GroupNorm(name, source, target, f"{name}.weight", f"{name}.bias", groups, EPSILON)
        self._append(node, means=(1.0, 0.0), spreads=(0.2, 0.2))

    def add_relu(self) -> None:
        self._append(Relu(*self._names("relu")))

    def add_leaky_relu(self, alpha: float) -> None:
        self._append(LeakyRelu(*self._names("leaky"), float(np.float32(alpha))))

    def add_sigmoid(self) -> None:
        self._append(Sigmoid(*self._names("sigmoid")))

    def add_tanh(self) -> None:
        self._append(Tanh(*self._names("tanh")))

    def add_hard_swish(self) -> None:
        self._append(HardSwish(*self._names("swish")))

    def add_clip(self, low: float, high: float) -> None:
        self._append(Clip(*self._names("clip"), float(np.float32(low)), float(np.float32(high))))

    def add_flatten(self) -> None:
        self._append(Flatten(*self._names("flatten")))

    def add_max_pool(self, window: Window) -> None:
        self._append(MaxPool(*self._names("pool"), window))

    def add_average_pool(self, window: Window, count_include_pad: bool) -> None:
        self._append(AveragePool(*self._names("average"), window, count_include_pad))

    def add_global_average_pool(self) -> None:
        self._append(GlobalAveragePool(*self._names("global")))

    def add_add(self, other: str) -> None:
        self._append(Add(*self._names("add"), other))

    def add_concat(self, *others: tuple[str, Shape]) -> None:
        """Join the channels here with those of other positions."""
        node = Concat(*self._names("concat"), tuple(name for name, _ in others))
        shape = node.joined_shape([self.current, *(shape for _, shape in others)])
        self._append(node)
        self.current = shape

    @property
    def position(self) -> tuple[str, Shape]:
        return self.source, self.current

    def go_to(self, position: tuple[str, Shape]) -> None:
        """The next node reads there: a branch."""
        self.source, self.current = position

    def graph(self, name: str) -> Graph:
        return Graph(name, "x", self.shape, tuple(self.nodes), self.weights)

    def _names(self, kind: str) -> tuple[str, str, str]:
        self.counts[kind] = self.counts.get(kind, 0) + 1
        name = f"{kind}{self.counts[kind]}"
        return name, self.source, f"{name}.y"

    def _append(
        self, node: Node, means: tuple[float, float] = (0.0, 0.0), spreads: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        """Append `node` and draw its (weight, bias) from normal distributions."""
        shapes = zip(node.weight_names, node.weight_shapes(self.current), means, spreads, strict=False)
        for name, shape, mean, spread in shapes:
            drawn = self.rng.normal(size=shape)
            values = np.round(4 * mean + 2 * drawn) / 4 if self.coarse else mean + spread * drawn
            self.weights[name] = frozen_float32(values)
        self.source, self.current = node.output, node.output_shape(self.current)
        self.nodes.append(node)


# --- adaptation ----------------------------------------------------------------------------------------------


def uint8_encoding(rng: np.random.Generator, channels: int) -> InputEncoding:
    scale = rng.uniform(0.5, 2.0, channels).astype(np.float32) / np.float32(64)
    offset = -rng.uniform(1.0, 3.0, channels).astype(np.float32)
    return InputEncoding("uint8", tuple(float(s) for s in scale), tuple(float(o) for o in offset))


def layer_attention(rng: np.random.Generator, graph: Graph, layer: Node, chance: float) -> LayerAttention:
    """Modules that really choose: which channels they keep depends on the sample, for gradients (small) too."""
    channels = layer.attention_channels(graph.shapes[layer.input])
    # Gains over what γ^fw sees (activations) and γ^bw sees (gradients, smaller the lower the layer).
    gains = (10 ** rng.uniform(0.0, 0.7), 10 ** rng.uniform(1.5, 3.0))
    modules = [
        _attention_module(rng, count, gain) if rng.random() < chance else None
        for count, gain in zip(channels, gains, strict=True)
    ]
    return LayerAttention(*modules)


def _attention_module(rng: np.random.Generator, channels: int, gain: float) -> AttentionModule:
    spread = channels**-0.5
    return AttentionModule(
        w1=frozen_float32(rng.normal(size=(channels, channels)) * spread * gain),
        b1=frozen_float32(rng.normal(size=channels) * 0.2),
        w2=frozen_float32(rng.normal(size=(channels, channels)) * spread),
        b2=frozen_float32(rng.normal(size=channels) * 0.3),
    )
