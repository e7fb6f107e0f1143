"""Appendix A of the paper, literally: memory and multiply-accumulates of one adaptation step, Eqs. 16, 17 and 18.

This is one of three accounts that are kept apart: what the appendix's formulas say (here), what the paper's tables
really count, and what the plan really needs (`pmeta.codegen.plan`). Everything is per sample, for sample batch size 1;
a word is four bytes.

The appendix treats convolutions and says that "extensions to mixed layers can simply be done". They are done so:

- A layer l is a row of the step-size table α: Conv, Gemm or GroupNormalization.
- A fully connected layer is a convolution with H = W = S = 1.
- A GroupNormalization is a depthwise 1×1 convolution of x̂ with its scale: m(w_l) = C. What it stores is x̂ (Sec. 3.5.2),
  as large as its input. Its statistics are among the lower-order terms that Eq. 18 neglects.
- Biases and shifts appear nowhere: the appendix has none. α̂_l is 1 where the *weight* learns; l_min is the lowest layer
  of which anything learns, because the backward pass must reach it.
- The appendix's σ does not change sizes, a max-pool does. So H_l·W_l is what the linear operation writes (m(y) = m(z)),
  H_{l-1}·W_{l-1} what the layer reads, max m(x_l) runs over all maps before and after pooling, and m(x_l)/T counts each
  ReLU (T = 32) and each max-pool (T = 16) with the elements it writes.
- x_0 counts one word per element, however the sample is encoded.
- The critical ratios μ are known only at run time. `critical="bound"` takes the most channels that Algorithm 1 can ever
  keep, which is what memory must be reserved for; `critical="all"` takes μ = 1, as without attention; a
  mapping has the numbers of channels that were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Literal

from pmeta.codegen.adaptation import Model
from pmeta.codegen.graph import Graph, Node
from pmeta.codegen.operators import Clip, HardSwish, LeakyRelu, MaxPool, Relu, Sigmoid, Tanh
from pmeta.codegen.operators.weight_gradient import kept_channels_bound

BYTES_PER_WORD = 4
WORD_BITS = 32
# How many channels count as critical; a mapping has (input, output) channels by layer name, all of layers it lacks.
Critical = Literal["bound", "all"] | Mapping[str, tuple[int, int]]
# T: for a max-pool and activations whose derivative is one of two numbers; a whole word is kept for the others.
_WORD_LENGTH: dict[type[Node], int] = {
    Clip: 32,
    LeakyRelu: 32,
    Relu: 32,
    MaxPool: 16,
    HardSwish: 1,
    Sigmoid: 1,
    Tanh: 1,
}


@dataclass(frozen=True)
class AppendixA:
    """The terms of Eqs. 16 and 18 for one step; memory in words, computation in MACs, both per sample."""

    step: int  # k = 1..K
    lowest_layer: str | None  # l_min; None where nothing learns
    largest_map_words: int  # max m(x_l), l = 0..L
    accumulator_words: int  # Σ α̂_l·m(w_l)
    stored_input_words: int  # Σ α̂_l·μ_l^fw·m(x_{l-1}): Eq. 17, the dominating term
    derivative_bits: int  # 32/T·Σ m(x_l), l = l_min..L: σ' of ReLU and max-pool
    forward_macs: int  # Σ H_l·W_l·m(w_l)
    weight_gradient_macs: int  # Σ H_l·W_l·m(w_l)·α̂_l·μ_l^fw·μ_l^bw, each layer rounded up
    input_gradient_macs: int  # Σ H_{l-1}·W_{l-1}·m(w_l), l = l_min..L as printed in Eq. 18

    @property
    def memory_words(self) -> float:
        """Eq. 16. A fraction where the σ' bits do not fill their last word."""
        whole = self.largest_map_words + self.accumulator_words + self.stored_input_words
        return whole + self.derivative_bits / WORD_BITS

    @property
    def memory_bytes(self) -> int:
        """Eq. 16 in bytes, the σ' bits rounded up to a byte."""
        whole = self.largest_map_words + self.accumulator_words + self.stored_input_words
        return BYTES_PER_WORD * whole + -(-self.derivative_bits // 8)

    @property
    def stored_input_bytes(self) -> int:
        """Eq. 17 in bytes."""
        return BYTES_PER_WORD * self.stored_input_words

    @property
    def macs(self) -> int:
        """Eq. 18."""
        return self.forward_macs + self.weight_gradient_macs + self.input_gradient_macs


def appendix_a(model: Model, step: int, critical: Critical = "bound") -> AppendixA:
    """Eqs. 16 to 18 for step k = 1..K of `model`."""
    graph = model.graph
    rows = [_Row(model, layer, index, step, critical) for index, layer in enumerate(graph.layers)]
    reached = [row for n, row in enumerate(rows) if any(lower.learns_anything for lower in rows[: n + 1])]
    above = graph.nodes[graph.nodes.index(reached[0].layer) + 1 :] if reached else ()
    return AppendixA(
        step=step,
        lowest_layer=reached[0].layer.name if reached else None,
        largest_map_words=max(prod(shape) for shape in graph.shapes.values()),
        accumulator_words=sum(row.weight_words for row in rows if row.weight_learns),
        stored_input_words=sum(row.stored_words for row in rows if row.weight_learns),
        derivative_bits=sum(derivative_bits(graph, node) for node in above),
        forward_macs=sum(row.output_pixels * row.weight_words for row in rows),
        weight_gradient_macs=sum(row.weight_gradient_macs for row in rows if row.weight_learns),
        input_gradient_macs=sum(row.input_pixels * row.weight_words for row in reached),
    )


def critical_channels(model: Model, layer: Node, critical: Critical = "bound") -> tuple[int, int]:
    """(input, output) channels of a layer that can be critical: μ^fw·C_{l-1} and μ^bw·C_l."""
    channels_in, channels_out = layer.attention_channels(model.graph.shapes[layer.input])
    if isinstance(critical, Mapping):
        return critical.get(layer.name, (channels_in, channels_out))
    attention = model.adaptation.attention.get(layer.name)
    if attention is None or critical == "all":
        return channels_in, channels_out
    kept_in = kept_channels_bound(channels_in, model.adaptation.rho_fw) if attention.fw else channels_in
    kept_out = kept_channels_bound(channels_out, model.adaptation.rho_bw) if attention.bw else channels_out
    return kept_in, kept_out


class _Row:
    """What the sums need of one layer."""

    def __init__(self, model: Model, layer: Node, index: int, step: int, critical: Critical) -> None:
        graph = model.graph
        shape_in, shape_out = graph.shapes[layer.input], graph.shapes[layer.output]
        self.layer = layer
        self.weight_learns = model.learns(index, "weight", step)  # α̂_l
        self.learns_anything = self.weight_learns or (len(layer.weight_names) > 1 and model.learns(index, "bias", step))
        self.weight_words = int(graph.weights[layer.weight_names[0]].size)  # m(w_l)
        self.input_pixels = prod(shape_in[1:])  # H_{l-1}·W_{l-1}; 1 for a vector
        self.output_pixels = prod(shape_out[1:])  # H_l·W_l
        channels = layer.attention_channels(shape_in)
        kept = critical_channels(model, layer, critical)
        self.stored_words = kept[0] * self.input_pixels  # μ^fw·m(x_{l-1})
        dense = self.output_pixels * self.weight_words
        self.weight_gradient_macs = -(-dense * prod(kept) // prod(channels))


def derivative_bits(graph: Graph, node: Node) -> int:
    """Bits for σ' of one node: per element it writes one (T = 32), two (T = 16), a word, or none if it is no σ."""
    word_length = _WORD_LENGTH.get(type(node))
    return prod(graph.shapes[node.output]) * WORD_BITS // word_length if word_length else 0
