"""Models and samples for tests, drawn from a seed: a 4Conv as in the paper, and small chains of any operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import (
    Adaptation,
    AttentionModule,
    InputEncoding,
    LayerAttention,
    Model,
    UpdatedPart,
)
from pmeta.codegen.graph import Float32Array, Graph, Node, Shape, frozen_float32
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

T = TypeVar("T")

LARGEST = float(np.finfo(np.float32).max)
EPSILON = float(np.float32(1e-5))
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
    chain = _Chain(rng, size)
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
        encoding=_uint8_encoding(rng, size[0]),
        attention={layer.name: _layer_attention(rng, graph, layer, 1.0) for layer in layers[:-1]} if attention else {},
    )
    return Model(graph, adaptation)


def random_chain(rng: np.random.Generator) -> Model:
    """A small random chain: any operators in any order that fits, any windows, step sizes with zeros anywhere.

    It seeks corners on purpose: windows that reach far into the padding, maps of one pixel, one channel, layers
    that read the sample, steps that update nothing, layers of which only one part learns.
    """
    ways = int(rng.integers(2, 6))
    if rng.random() < 0.1:
        chain = _Chain(rng, (int(rng.integers(1, 20)),))
    else:
        channels, height, width = _pick(rng, (1, 3, 5, 8)), *(int(n) for n in rng.integers(3, 13, 2))
        chain = _Chain(rng, (channels, 1 if rng.random() < 0.1 else height, width))  # one row: a (C, L) sample
        for _ in range(int(rng.integers(1, 4))):
            _random_block(chain)
    _random_head(chain, ways)
    graph = chain.graph("random-chain")
    return Model(graph, _random_adaptation(rng, graph, ways))


def with_storage(model: Model, storage: Storage) -> Model:
    """The same model, its numbers stored otherwise."""
    return replace(model, adaptation=replace(model.adaptation, storage=storage))


def regression(model: Model) -> Model:
    """The same model, but it learns numbers."""
    return Model(model.graph, replace(model.adaptation, loss="mean_squared_error"))


def random_samples(model: Model, seed: int, count: int) -> tuple[npt.NDArray[np.generic], npt.NDArray[Any]]:
    """(samples, targets): samples (count, *input shape) in the model's wire encoding; labels that cover every way.

    A model that learns numbers gets (count, ways) float32 instead of labels.

    Each class has a pattern of its own under noise, so that adaptation has something to learn.
    """
    rng = np.random.default_rng(seed)
    shape, ways = model.graph.input_shape, model.adaptation.ways
    labels = rng.permutation(np.arange(count) % ways)
    patterns = np.random.default_rng(0).normal(size=(ways, *shape))
    values = patterns[labels] + 0.7 * rng.normal(size=(count, *shape))
    if model.adaptation.encoding.kind == "uint8":
        samples: npt.NDArray[np.generic] = np.clip(128 + 48 * values, 0, 255).astype(np.uint8)
    else:
        samples = values.astype(np.float32)
    if model.adaptation.regression:
        return samples, (np.eye(ways)[labels] + 0.1 * rng.normal(size=(count, ways))).astype(np.float32)
    return samples, labels


# --- graphs --------------------------------------------------------------------------------------------------


@dataclass
class _Chain:
    """Grows a graph node by node, from `position` on, and draws each layer's weights."""

    rng: np.random.Generator
    shape: Shape  # of the sample
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
            self.weights[name] = frozen_float32(mean + spread * self.rng.normal(size=shape))
        self.source, self.current = node.output, node.output_shape(self.current)
        self.nodes.append(node)


def _random_block(chain: _Chain) -> None:
    """Most often conv → GN → activation → pool with parts missing; sometimes the same operators in any order."""
    operators = (_random_conv, _random_group_norm, _random_activation, _random_pool)
    if chain.rng.random() < 0.25:
        for index in chain.rng.permutation(4)[: chain.rng.integers(1, 5)]:
            operators[index](chain)
    else:
        for operator, chance in zip(operators, (1.0, 0.7, 0.85, 0.6), strict=True):
            if chain.rng.random() < chance:
                operator(chain)
    branches = chain.rng.random()
    if branches < 0.3:
        _random_residual(chain)
    elif branches < 0.55:
        _random_concat(chain)


def _random_residual(chain: _Chain) -> None:
    """Two branches that meet in a sum: one or two layers, and their input as it is or through a layer of its own.

    The branches' nodes may be mixed, both may be the same activation, and more may read it.
    """
    rng, entry, same = chain.rng, chain.position, Window((3, 3), pad_before=(1, 1), pad_after=(1, 1))
    filters = chain.current[0] if rng.random() < 0.6 else _pick(rng, (1, 4, 6))
    chain.add_conv(filters, same, bias=bool(rng.random() < 0.2))
    branch = chain.position
    chain.go_to(entry)
    if filters != entry[1][0] or rng.random() < 0.3:
        chain.add_conv(filters, Window((1, 1)), bias=False)
        if rng.random() < 0.5:
            _random_group_norm(chain)
    shortcut = chain.position
    chain.go_to(branch)
    for operator in (_random_group_norm, _random_activation):
        if rng.random() < 0.7:
            operator(chain)
    chain.add_add(chain.source if rng.random() < 0.1 and shortcut == entry else shortcut[0])
    if rng.random() < 0.6:
        _random_activation(chain)


def _random_concat(chain: _Chain) -> None:
    """Two or three branches, convolutions or their input as it is, whose channels are joined in any order."""
    rng, entry = chain.rng, chain.position
    branches = [entry] if rng.random() < 0.5 else []
    for _ in range(3 if rng.random() < 0.2 else 2):
        chain.go_to(entry)
        chain.add_conv(_pick(rng, (1, 2, 5)), Window((3, 3), pad_before=(1, 1), pad_after=(1, 1)), bias=False)
        if rng.random() < 0.5:
            _random_activation(chain)
        branches.append(chain.position)
    if rng.random() < 0.1:
        branches.append(branches[0])  # read twice
    first, *others = [branches[index] for index in rng.permutation(len(branches))]
    chain.go_to(first)
    chain.add_concat(*others)


def _random_conv(chain: _Chain) -> None:
    window = _random_window(chain.rng, chain.current, (1, 2, 3, 3, 5), max_pad=2)
    filters, groups, channels = _pick(chain.rng, (1, 3, 5, 8)), 1, chain.current[0]
    if chain.rng.random() < 0.3:  # often depthwise
        groups = _pick(chain.rng, [channels, *(g for g in range(1, channels + 1) if channels % g == 0)])
        filters = groups * _pick(chain.rng, (1, 1, 2))
    chain.add_conv(filters, window, bool(chain.rng.random() < 0.5), groups)


def _random_activation(chain: _Chain) -> None:
    """A Relu more often than others: only that may change places with a MaxPool."""
    rng = chain.rng
    others: tuple[Callable[[], None], ...] = (
        *(chain.add_hard_swish, chain.add_sigmoid, chain.add_tanh),
        lambda: chain.add_leaky_relu(_pick(rng, (0.01, 0.3, -0.5))),
        lambda: chain.add_clip(*_pick(rng, ((0.0, 6.0), (-0.5, 0.7), (-LARGEST, 0.5)))),
    )
    if rng.random() < 0.3:
        chain.add_relu()
    else:
        _pick(rng, others)()


def _random_pool(chain: _Chain) -> None:
    if chain.rng.random() < 0.5 and min(chain.current[1:]) >= 2:
        window = Window((2, 2), stride=(2, 2))
    else:
        window = _random_window(chain.rng, chain.current, (1, 2, 3), max_pad=None)
    if chain.rng.random() < 0.6:
        chain.add_max_pool(window)
    else:
        chain.add_average_pool(window, count_include_pad=bool(chain.rng.random() < 0.5))


def _random_group_norm(chain: _Chain) -> None:
    """Mostly groups of more than two elements: of one or two, x̂ says at most which is greater."""
    channels = chain.current[0]
    choices = [g for g in range(1, channels + 1) if channels % g == 0]
    if chain.rng.random() < 0.9:
        choices = [g for g in choices if np.prod(chain.current) // g > 2]
    if choices:
        chain.add_group_norm(_pick(chain.rng, choices))


def _random_window(rng: np.random.Generator, shape: Shape, kernels: tuple[int, ...], max_pad: int | None) -> Window:
    """A window that fits the map of `shape` (C, H, W), drawn for rows and columns apart.

    Pads go up to `max_pad`, or to less than the kernel where that is None; then every window sees some input.
    """
    axes = []
    for size in shape[1:]:
        while True:
            kernel, stride, dilation = _pick(rng, kernels), _pick(rng, (1, 1, 2)), _pick(rng, (1, 1, 1, 2))
            before, after = (int(n) for n in rng.integers(0, kernel if max_pad is None else max_pad + 1, 2))
            extent = dilation * (kernel - 1) + 1
            if extent <= size + before + after and dilation <= size:
                break
        axes.append((kernel, stride, dilation, before, after))
    return Window(*zip(*axes, strict=True))


def _random_head(chain: _Chain, ways: int) -> None:
    """Logits: a convolution over the whole map, or one or two fully connected layers."""
    if len(chain.current) == 3:
        size = chain.current[1:]
        if max(size) <= 5 and chain.rng.random() < 0.2:
            chain.add_conv(ways, Window(size), bias=bool(chain.rng.random() < 0.5))
            chain.add_flatten()
            return
        if chain.rng.random() < 0.3:
            _random_activation(chain)  # the mean of what was just normalized hardly depends on anything
            chain.add_global_average_pool()
        while np.prod(chain.current) > 128:  # so that attention over the features stays small
            chain.add_max_pool(Window(*[tuple(min(2, n) for n in chain.current[1:])] * 2))
        chain.add_flatten()
    if chain.rng.random() < 0.3:
        features = chain.position
        chain.add_gemm(_pick(chain.rng, (1, 7, 16)), bias=bool(chain.rng.random() < 0.5))
        if chain.current[0] > 1 and chain.rng.random() < 0.3:
            chain.add_group_norm(1)
        if chain.rng.random() < 0.8:
            _random_activation(chain)
        if chain.rng.random() < 0.4:
            chain.add_concat(features)
    chain.add_gemm(ways, bias=bool(chain.rng.random() < 0.8))


def _pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


# --- adaptation ----------------------------------------------------------------------------------------------


def _random_adaptation(rng: np.random.Generator, graph: Graph, ways: int) -> Adaptation:
    layers = graph.layers
    steps = int(rng.integers(1, 5))
    with_attention = rng.random() < 0.7
    encoding = _uint8_encoding(rng, graph.input_shape[0]) if rng.random() < 0.7 else InputEncoding("float32")
    attention = {}
    for layer in layers[:-1] if with_attention else ():
        if rng.random() < 0.8:
            attention[layer.name] = _layer_attention(rng, graph, layer, 0.75)
    return Adaptation(
        method="random",
        ways=ways,
        shots=int(rng.integers(1, 6)),
        alpha=_random_alpha(rng, len(layers), steps),
        updates=tuple(_pick(rng, (BOTH, BOTH, BOTH, BOTH, ("weight",), ("bias",), ())) for _ in layers),
        rho_fw=_pick(rng, (0, 300, 500)),
        rho_bw=_pick(rng, (0, 300, 500)),
        encoding=encoding,
        attention={name: found for name, found in attention.items() if found.fw or found.bw},
        storage=Storage(_pick(rng, ("float32", "float16", "int8")), _pick(rng, ("float32", "float16"))),
    )


def _random_alpha(rng: np.random.Generator, layers: int, steps: int) -> Float32Array:
    """Step sizes (L, K): zeros at random, and often whole rows or columns of zeros."""
    alpha = rng.uniform(0.01, 0.2, (layers, steps)) * (rng.random((layers, steps)) < 0.7)
    alpha *= rng.random((layers, 1)) < 0.8
    if rng.random() < 0.5:
        alpha[: rng.integers(0, layers)] = 0  # only the upper part of the network learns
    if rng.random() < 0.1:
        alpha[:, rng.integers(0, steps)] = 0  # a step that updates nothing
    return frozen_float32(alpha)


def _uint8_encoding(rng: np.random.Generator, channels: int) -> InputEncoding:
    scale = rng.uniform(0.5, 2.0, channels).astype(np.float32) / np.float32(64)
    offset = -rng.uniform(1.0, 3.0, channels).astype(np.float32)
    return InputEncoding("uint8", tuple(float(s) for s in scale), tuple(float(o) for o in offset))


def _layer_attention(rng: np.random.Generator, graph: Graph, layer: Node, chance: float) -> LayerAttention:
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
