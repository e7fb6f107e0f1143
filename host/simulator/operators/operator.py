"""What the simulator needs to know about an operator: forward, and both directions of backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import UpdatedPart
from pmeta.codegen.graph import Float32Array, Node
from pmeta.host.simulator.arithmetic import sum_from_zero
from pmeta.host.simulator.storage import Rounding

BoolArray = npt.NDArray[np.bool_]
Arithmetic = Callable[[Float32Array, Float32Array], Float32Array]  # one operation, elementwise
Weights = Mapping[str, Float32Array]  # by name, as they are now
NodeT = TypeVar("NodeT", bound=Node)
SavedT = TypeVar("SavedT")  # what an operator's backward pass needs from its forward pass


@dataclass(frozen=True)
class Gamma:
    """Meta attention of one layer for one sample; None where a direction has no module (γ = 1, no multiplication)."""

    fw: Float32Array | None  # (C,), of the layer's input channels
    bw: Float32Array | None  # (F,), of its output channels


@dataclass(frozen=True)
class Contribution:
    """What one sample adds to one accumulator: G ← G + factor·d, or G + d without a factor, only where kept."""

    d: Float32Array  # the weight's shape
    factor: Float32Array | None  # broadcasts to d
    kept: BoolArray  # broadcasts to d
    product: Arithmetic = np.multiply
    total: Arithmetic = np.add

    def added_to(self, accumulator: Float32Array) -> Float32Array:
        """G after this sample."""
        added = self.d if self.factor is None else self.product(self.factor, self.d)
        return np.where(self.kept, self.total(accumulator, added), accumulator)


class Operator(ABC, Generic[NodeT, SavedT]):
    """How a kind of node computes, for one sample. It has no state: all of it goes through `saved`."""

    @abstractmethod
    def forward(self, node: NodeT, weights: Weights, x: Float32Array) -> tuple[Float32Array, SavedT]:
        """(output, saved)."""

    @abstractmethod
    def input_gradient(self, node: NodeT, weights: Weights, saved: SavedT, gy: Float32Array) -> Float32Array:
        """g(x) from g(y)."""

    def kept(self, saved: SavedT, rounded: Rounding) -> SavedT:
        """What the backward pass gets of `saved`: what is kept as numbers is rounded."""
        return saved

    def join(self, node: NodeT, weights: Weights, inputs: Sequence[Float32Array]) -> tuple[Float32Array, SavedT]:
        """`forward` from all inputs."""
        return self.forward(node, weights, inputs[0])

    def input_gradients(
        self, node: NodeT, weights: Weights, saved: SavedT, gy: Float32Array
    ) -> tuple[Float32Array, ...]:
        """`input_gradient` of all inputs."""
        return (self.input_gradient(node, weights, saved, gy),)


class JoinOperator(Operator[NodeT, SavedT]):
    """An operator in which branches join: `join` and `input_gradients` say all."""

    def forward(self, node: NodeT, weights: Weights, x: Float32Array) -> tuple[Float32Array, SavedT]:
        raise AssertionError(f"{type(node).__name__} has several inputs")

    def input_gradient(self, node: NodeT, weights: Weights, saved: SavedT, gy: Float32Array) -> Float32Array:
        raise AssertionError(f"{type(node).__name__} has several inputs")


class LayerOperator(Operator[NodeT, SavedT]):
    """An operator with weights."""

    @abstractmethod
    def kept_for_weights(self, saved: SavedT, rounded: Rounding, fw: Float32Array | None, of_sample: bool) -> SavedT:
        """`kept`, with forward attention applied to what the layer's own gradient reads.

        of_sample: the layer reads the sample, which is at hand again in the backward pass.
        """

    @abstractmethod
    def attended(self, saved: SavedT) -> Float32Array:
        """What forward attention looks at: (C, ...)."""

    @abstractmethod
    def contribution(
        self, node: NodeT, kept: SavedT, gy: Float32Array, gamma: Gamma, part: UpdatedPart
    ) -> Contribution:
        """What this sample adds to the accumulator of the weight or of the bias, from `kept_for_weights`."""


def kept_input(x: Float32Array, rounded: Rounding, fw: Float32Array | None, of_sample: bool) -> Float32Array:
    """The input (C, ...) of a Conv or Gemm as it is kept: γ^fw·x, rounded; x without attention."""
    if fw is not None:
        return rounded(_along(fw, 0, x.ndim) * x)
    return x if of_sample else rounded(x)


def kept_channels(gamma: Float32Array | None) -> BoolArray:
    """Where γ (C,) is not +0, so that the channel is not skipped; (1,), always true, without attention."""
    return np.ones(1, np.bool_) if gamma is None else gamma != 0


def weight_contribution(d: Float32Array, gamma: Gamma) -> Contribution:
    """Of the weight of a Conv or Gemm: γ^bw_f·d (F, C/groups, ...); its d has already seen γ^fw."""
    factor = None if gamma.bw is None else _along(gamma.bw, 0, d.ndim)
    kept = _along(kept_channels(gamma.bw), 0, d.ndim)
    if gamma.fw is not None:
        groups = kept_channels(gamma.fw).reshape(-1, d.shape[1])  # (groups, C/groups)
        of_filters = groups.repeat(d.shape[0] // len(groups), axis=0)  # the channels that each filter reads
        kept = kept & of_filters.reshape(*d.shape[:2], *[1] * (d.ndim - 2))
    return Contribution(d, factor, kept)


def bias_contribution(gy: Float32Array, gamma: Gamma) -> Contribution:
    """Of a bias or shift: γ^bw_f·d with d (F,) the sum from +0 of g(y) (F, ...) over pixels."""
    d = sum_from_zero(gy.reshape(gy.shape[0], -1))
    return Contribution(d, gamma.bw, kept_channels(gamma.bw))


def _along(values: npt.NDArray[Any], axis: int, ndim: int) -> npt.NDArray[Any]:
    """`values` (n,) shaped to broadcast along `axis` of an array with `ndim` axes."""
    return values.reshape([-1 if index == axis else 1 for index in range(ndim)])
