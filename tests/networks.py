"""Random networks: any operators, windows, branches, encodings and step sizes, in any combination that fits.

What a network is made of is a row of choices, each an integer of a small range whose lowest value is the simplest.
Hypothesis makes them in the tests of whole models (`networks`), so that a network that fails shrinks to a small one;
other tests take them from a seed (`random_network`). Weights are drawn from a seed, which is one of the choices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from pmeta.codegen.adaptation import Adaptation, InputEncoding, Model, UpdatedPart
from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Float32Array, Graph, Shape, frozen_float32
from pmeta.codegen.operators import Window
from pmeta.codegen.plan.strategy import SLOWER_STRATEGIES, STRATEGIES, Strategy
from pmeta.codegen.storage import Storage
from tests.models import BOTH, Chain, SampleKind, layer_attention, uint8_encoding

T = TypeVar("T")

CHANNELS = (1, 3, 5, 8, 17)
KERNELS = (1, 3, 4, 5, 7, 2)
LARGEST = float(np.finfo(np.float32).max)
MOST_FEATURES = 128  # of a vector: attention over them stays small
DEEPEST = 2  # branches within branches
SEEDS = 1 << 16
STORED = (("float32", "float16", "int8"), ("float32", "float16"))  # kept numbers, maps


@dataclass(frozen=True)
class Choices:
    """Where a network's choices come from; the simplest option is the lowest, the first, or no."""

    integer: Callable[[int, int], int]  # lowest and highest possible value -> the value

    def pick(self, options: Sequence[T]) -> T:
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        return self.integer(0, 99) >= 100 - percent


@dataclass(frozen=True)
class Network:
    """A model, and one way to plan and to test it."""

    model: Model
    strategy: Strategy
    support: int  # samples of each step
    samples: SampleKind
    seed: int  # of the samples

    def __repr__(self) -> str:
        """Short: the nodes, without weights."""
        nodes = ", ".join(
            f"{type(node).__name__}{self.model.graph.shapes[node.output]}" for node in self.model.graph.nodes
        )
        how = f"{self.model.adaptation.storage}, {self.strategy}, {self.support} {self.samples} samples"
        return f"<{self.model.graph.input_shape} -> {nodes}; {how}>"


@st.composite
def networks(draw: Callable[[st.SearchStrategy[int]], int]) -> Network:
    """Networks in which something learns."""
    choices = Choices(lambda low, high: draw(st.integers(low, high)) if low < high else low)
    model = network_model(choices)
    ways = model.adaptation.ways
    return Network(
        model,
        strategy=choices.pick((*STRATEGIES, *SLOWER_STRATEGIES)),
        support=choices.pick((1, ways, 2, ways + 1)),
        samples=choices.pick(("ordinary", "coarse", "special")),
        seed=choices.integer(0, SEEDS),
    )


def random_network(seed: int) -> Model:
    """The model of one network: the same seed gives the same."""
    rng = np.random.default_rng(seed)
    return network_model(Choices(lambda low, high: int(rng.integers(low, high + 1))))


def network_model(choices: Choices) -> Model:
    """A small network. It seeks corners on purpose.

    Windows that reach far into the padding, maps of one pixel, one channel, layers that read the sample, numbers that
    are equal, steps that update nothing, layers of which only one part learns.
    """
    rng = np.random.default_rng(choices.integer(0, SEEDS))
    ways = choices.integer(2, 5)
    chain = Chain(rng, _input_shape(choices), coarse=choices.chance(25))
    if len(chain.shape) == 3:
        for _ in range(choices.pick((1, 2, 3, 4, 2, 3, 0))):
            _block(choices, chain, DEEPEST)
    _head(choices, chain, ways)
    graph = chain.graph("random-network")
    return Model(graph, _adaptation(choices, rng, graph, ways, chain.coarse))


def _input_shape(choices: Choices) -> Shape:
    """Mostly maps, some of one row, as a (C, L) sample is; sometimes vectors."""
    kind = choices.pick(("maps", "maps", "maps", "maps", "maps", "maps", "one row", "one row", "vector"))
    if kind == "vector":
        return (choices.integer(1, 20),)
    rows = 1 if kind == "one row" else choices.integer(1, 13)
    return choices.pick(CHANNELS), rows, choices.integer(1, 13)


# --- blocks --------------------------------------------------------------------------------------------------


def _block(choices: Choices, chain: Chain, depth: int) -> None:
    """Most often conv → GN → activation → pool with parts missing; sometimes the same in any order, or branches."""
    kind = choices.pick(("usual", "usual", "any order", "sum", "concat"))
    if depth and kind == "sum":
        _sum_of_branches(choices, chain, depth)
    elif depth and kind == "concat":
        _concat_of_branches(choices, chain, depth)
    elif kind == "any order":
        for _ in range(choices.integer(1, 4)):
            choices.pick((_activation, _pool, _conv, _group_norm))(choices, chain)
    else:
        _conv(choices, chain)
        for operator, percent in ((_group_norm, 60), (_activation, 80), (_pool, 50)):
            if choices.chance(percent):
                operator(choices, chain)


def _sum_of_branches(choices: Choices, chain: Chain, depth: int) -> None:
    """Two branches that meet in a sum, as in a ResNet: their input as it is, or through a layer of its own.

    The branches' nodes may be mixed, both may be the same activation, and more may read it.
    """
    entry, stride = chain.position, choices.pick((1, 1, 2, 3))
    filters = choices.pick((entry[1][0], *CHANNELS))
    chain.add_conv(filters, _same_size(choices, stride), bias=choices.chance(20))
    branch = chain.position
    chain.go_to(entry)
    if filters != entry[1][0] or stride > 1 or choices.chance(30):
        chain.add_conv(filters, Window((1, 1), stride=(stride, stride)), bias=False)
        if choices.chance(50):
            _group_norm(choices, chain)
    shortcut = chain.position
    chain.go_to(branch)
    for operator in (_group_norm, _activation):
        if choices.chance(60):
            operator(choices, chain)
    if choices.chance(20):
        _same_size_block(choices, chain, depth - 1)
    twice = shortcut == entry and choices.chance(10)
    chain.add_add(chain.source if twice else shortcut[0])
    if choices.chance(60):
        _activation(choices, chain)


def _concat_of_branches(choices: Choices, chain: Chain, depth: int) -> None:
    """Two or three branches, as in an Inception block, or their input as it is; joined in any order."""
    entry, stride = chain.position, choices.pick((1, 1, 2))
    branches = [entry] if stride == 1 and choices.chance(50) else []
    for _ in range(choices.integer(1 if branches else 2, 3)):
        chain.go_to(entry)
        if choices.chance(25):
            chain.add_max_pool(_same_size(choices, stride))
        else:
            chain.add_conv(choices.pick((1, 2, 5)), _same_size(choices, stride), bias=choices.chance(20))
        if choices.chance(50):
            _activation(choices, chain)
        if choices.chance(15):
            _same_size_block(choices, chain, depth - 1)
        branches.append(chain.position)
    if choices.chance(10):
        branches.append(branches[0])  # read twice
    first, *others = _in_any_order(choices, branches)
    chain.go_to(first)
    chain.add_concat(*others)


def _same_size_block(choices: Choices, chain: Chain, depth: int) -> None:
    """A branch within a branch, whose output has the shape of its input."""
    entry = chain.position
    if not depth:
        _activation(choices, chain)
        return
    chain.add_conv(entry[1][0], _same_size(choices, 1), bias=False)
    _activation(choices, chain)
    chain.add_add(entry[0])


def _same_size(choices: Choices, stride: int) -> Window:
    """A square window whose output has ⌈n / stride⌉ rows and columns."""
    kernel = choices.pick((1, 3, 3, 5))
    pad = (kernel // 2,) * 2
    return Window((kernel, kernel), (stride, stride), pad_before=pad, pad_after=pad)


def _in_any_order(choices: Choices, items: Sequence[T]) -> list[T]:
    left, ordered = list(items), []
    while left:
        ordered.append(left.pop(choices.integer(0, len(left) - 1)))
    return ordered


# --- operators -----------------------------------------------------------------------------------------------


def _conv(choices: Choices, chain: Chain) -> None:
    window = _window(choices, chain.current, KERNELS, most_pad=3, pooling=False)
    filters, groups, channels = choices.pick(CHANNELS), 1, chain.current[0]
    if choices.chance(30):  # often depthwise
        groups = choices.pick([channels, *(g for g in range(1, channels + 1) if channels % g == 0)])
        filters = groups * choices.pick((1, 1, 2))
    chain.add_conv(filters, window, choices.chance(50), groups)


def _group_norm(choices: Choices, chain: Chain) -> None:
    channels = chain.current[0]
    chain.add_group_norm(choices.pick([groups for groups in range(1, channels + 1) if channels % groups == 0]))


def _activation(choices: Choices, chain: Chain) -> None:
    """A Relu more often than others: only that may change places with a MaxPool."""
    if choices.chance(70):
        choices.pick(
            (
                lambda: chain.add_leaky_relu(choices.pick((0.01, 0.3, -0.5))),
                lambda: chain.add_clip(*choices.pick(((0.0, 6.0), (-0.5, 0.75), (-LARGEST, 0.5)))),
                chain.add_hard_swish,
                chain.add_sigmoid,
                chain.add_tanh,
            )
        )()
    else:
        chain.add_relu()


def _pool(choices: Choices, chain: Chain) -> None:
    if min(chain.current[1:]) >= 2 and choices.chance(50):
        window = Window((2, 2), stride=(2, 2))
    else:
        window = _window(choices, chain.current, (1, 2, 3, 5), most_pad=2, pooling=True)
    if choices.chance(40):
        chain.add_average_pool(window, count_include_pad=choices.chance(50))
    else:
        chain.add_max_pool(window)


def _window(choices: Choices, shape: Shape, kernels: Sequence[int], most_pad: int, pooling: bool) -> Window:
    """A window that fits the map of `shape` (C, H, W), for rows and columns apart; a pooling's always sees input."""
    axes = []
    for size in shape[1:]:
        stride, dilation = choices.pick((1, 1, 2, 3)), choices.pick((1, 1, 2, 3))
        before, after = choices.integer(0, most_pad), choices.integer(0, most_pad)
        settings = [(kernel, stride, dilation, before, after) for kernel in kernels]
        fitting = [setting for setting in settings if _fits(setting, size, pooling)]
        axes.append(choices.pick(fitting or [(1, 1, 1, 0, 0)]))
    return Window(*zip(*axes, strict=True))


def _fits(setting: tuple[int, ...], size: int, pooling: bool) -> bool:
    """Whether (kernel, stride, dilation, pads) fit an axis of `size`."""
    kernel, stride, dilation, before, after = setting
    if pooling and max(before, after) >= kernel:
        return False  # possible, but not in onnxruntime
    window = Window((kernel, 1), (stride, 1), (dilation, 1), (before, 0), (after, 0))
    try:
        (window.pooled_size if pooling else window.output_size)((size, 1), "window")
    except ModelError:
        return False
    return True


# --- heads ---------------------------------------------------------------------------------------------------


def _head(choices: Choices, chain: Chain, ways: int) -> None:
    """Logits: a convolution over the whole map, or one or two fully connected layers."""
    if len(chain.current) == 3:
        size = chain.current[1:]
        if max(size) <= 5 and choices.chance(20):
            chain.add_conv(ways, Window(size), bias=choices.chance(50))
            chain.add_flatten()
            return
        if choices.chance(30):
            _activation(choices, chain)  # the mean of what was just normalized hardly depends on anything
            chain.add_global_average_pool()
        while prod(chain.current) > MOST_FEATURES:
            chain.add_max_pool(Window(*[tuple(min(2, n) for n in chain.current[1:])] * 2))
        chain.add_flatten()
    if choices.chance(30):
        features = chain.position
        chain.add_gemm(choices.pick((1, 7, 16)), bias=choices.chance(50))
        if chain.current[0] > 1 and choices.chance(30):
            chain.add_group_norm(1)
        if choices.chance(80):
            _activation(choices, chain)
        if choices.chance(40):
            chain.add_concat(features)
    chain.add_gemm(ways, bias=choices.chance(80))


# --- adaptation ----------------------------------------------------------------------------------------------


def _adaptation(choices: Choices, rng: np.random.Generator, graph: Graph, ways: int, coarse: bool) -> Adaptation:
    layers, steps = graph.layers, choices.integer(1, 4)
    updates = tuple(choices.pick((BOTH, BOTH, BOTH, BOTH, ("weight",), ("bias",), ())) for _ in layers)
    alpha = _step_sizes(choices, rng, len(layers), steps)
    if not _something_learns(graph, alpha, updates):
        alpha, updates = _only_the_last_learns(alpha), (*updates[:-1], ("weight",))
    attended = [layer for layer in layers[:-1] if choices.chance(50)] if choices.chance(70) else []
    attention = {layer.name: layer_attention(rng, graph, layer, 0.75) for layer in attended}
    adaptation = Adaptation(
        method="random",
        ways=ways,
        shots=1,
        alpha=alpha,
        updates=updates,
        rho_fw=choices.pick((0, 300, 500, 999)),
        rho_bw=choices.pick((0, 300, 500, 999)),
        encoding=_encoding(choices, rng, graph.input_shape[0], coarse),
        loss=choices.pick(("softmax_cross_entropy",) * 3 + ("mean_squared_error",)),
        sample_batch=choices.pick((1, 1, 2, 3)),
        storage=Storage(*(choices.pick(types) for types in STORED)) if choices.chance(50) else Storage(),
        attention={name: found for name, found in attention.items() if found.fw or found.bw},
    )
    return replace(adaptation, **_channel_step_sizes(choices, rng, graph)) if choices.chance(25) else adaptation


def _channel_step_sizes(choices: Choices, rng: np.random.Generator, graph: Graph) -> dict[str, dict[str, Float32Array]]:
    """α^Ch of some layers, on one side or both; some channels have 0."""
    tables: dict[str, dict[str, Float32Array]] = {"alpha_in": {}, "alpha_out": {}}
    for layer in graph.layers:
        channels = layer.attention_channels(graph.shapes[layer.input])
        for side, count in zip(tables.values(), channels, strict=True):
            if choices.chance(60):
                side[layer.name] = frozen_float32(rng.uniform(0, 2, count) * (rng.random(count) < 0.9))
    return tables


def _encoding(choices: Choices, rng: np.random.Generator, channels: int, coarse: bool) -> InputEncoding:
    """Coarse samples are multiples of 1/4, as coarse weights are: many are 0, and many sums of them."""
    if not choices.chance(60):
        return InputEncoding("float32")
    return InputEncoding("uint8", (0.25,) * channels, (-32.0,) * channels) if coarse else uint8_encoding(rng, channels)


def _step_sizes(choices: Choices, rng: np.random.Generator, layers: int, steps: int) -> Float32Array:
    """(L, K): each layer learns in some of the steps, often only the upper layers do."""
    learns = np.zeros((layers, steps), bool)
    for layer in range(choices.integer(0, layers - 1) if choices.chance(30) else 0, layers):
        mask = choices.integer(1, 2**steps - 1) if choices.chance(75) else 0
        learns[layer] = [mask >> step & 1 for step in range(steps)]
    return frozen_float32(rng.uniform(0.01, 0.2, (layers, steps)) * learns)


def _something_learns(graph: Graph, alpha: Float32Array, updates: Sequence[Sequence[UpdatedPart]]) -> bool:
    rows = zip(graph.layers, alpha, updates, strict=True)
    return any(
        row.any() and ("weight" in own or ("bias" in own and len(layer.weight_names) > 1)) for layer, row, own in rows
    )


def _only_the_last_learns(alpha: Float32Array) -> Float32Array:
    changed: np.ndarray[Any, Any] = np.zeros_like(alpha)
    changed[-1, 0] = np.float32(0.1)
    return frozen_float32(changed)
