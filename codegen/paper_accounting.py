"""The paper's accounting: what the memory and GMAC columns of its Tables 1 to 3 really count.

Appendix A leaves normalization, pooling, biases and branches out, but the tables' figures contain them. The rules here
were fitted to those figures and give all but three of them (`pmeta.codegen.report.paper_tables`). They are one of three
accounts that are kept apart: Eqs. 16 to 18 to the letter are `pmeta.codegen.appendix_a`, what really is needed is the
plan.

Peak memory is b times the most words of any moment of the forward pass, stored and live ones together, plus the
accumulators; b is the sample batch size. The backward pass gives the same back in reverse. A word is four bytes.

- Stored: the input of each updated Conv and Gemm, once for each layer that reads it; x̂ of each *updated*
  GroupNormalization (which forgets those that a gradient only passes through); from l_min on, a bit per element that
  a ReLU writes and two per element that a max-pool writes.
- Live: all activations that somebody still has to read. A node's output takes the place of its input where that is
  not needed later, so both together are as large as the larger one; of a Gemm whose input is stored, only the output
  counts.
- Accumulators: one word per updated parameter, there from the start; none without gradient accumulation.
- Meta attention: the vectors γ of each updated layer (Appendix A.1.2), and μ as in `appendix_a`. The paper says that
  its p-Meta rows contain them; as those depend on step sizes that are not printed, this could not be checked.

MACs are per sample: those of all Conv and Gemm, five per element of a GroupNormalization, one per element that an
average pooling reads. The weight gradient of an updated Conv or Gemm costs as much as its forward pass, that of a
GroupNormalization three per element. From l_min on, the gradient of a layer's input costs as much again, that of a
GroupNormalization's two per element. None is counted for a Conv that reads the sample, nor for the GroupNormalization
behind it, although the Conv needs that one. Biases, ReLU, max-pool and sums cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from pmeta.codegen.adaptation import Model
from pmeta.codegen.appendix_a import BYTES_PER_WORD, WORD_BITS, Critical, critical_channels, derivative_bits
from pmeta.codegen.graph import Graph, Node
from pmeta.codegen.operators import AveragePool, Conv, Gemm, GlobalAveragePool, GroupNorm


@dataclass(frozen=True)
class PaperAccount:
    """One adaptation step, or inference. Words and MACs are per sample, apart from `accumulator_words`.

    The words are those of the moment at which they are most.
    """

    sample_batch: int  # b: samples that pass through the network at once; of an episode, its observations
    peak_node: str  # at which node memory is highest
    stored_input_words: int  # inputs of updated Conv and Gemm
    normalized_words: int  # x̂ of updated GroupNormalizations
    derivative_bits: int  # of ReLUs and max-pools
    attention_words: int  # γ
    live_words: int  # activations that are still to be read
    accumulator_words: int  # of all samples together
    forward_macs: int
    weight_gradient_macs: int
    input_gradient_macs: int
    attention_macs: int

    @property
    def sample_words(self) -> float:
        """Words per sample; a fraction where bits do not fill the last one."""
        return self._whole_words + self.derivative_bits / WORD_BITS

    @property
    def memory_bytes(self) -> int:
        """Peak dynamic memory, rounded up to a byte."""
        samples = self.sample_batch * (WORD_BITS * self._whole_words + self.derivative_bits)
        return -(-samples // 8) + BYTES_PER_WORD * self.accumulator_words

    @property
    def macs(self) -> int:
        """Per sample."""
        return self.forward_macs + self.weight_gradient_macs + self.input_gradient_macs + self.attention_macs

    @property
    def _whole_words(self) -> int:
        return self.stored_input_words + self.normalized_words + self.attention_words + self.live_words


def paper_accounting(
    model: Model,
    step: int | None,
    sample_batch: int = 1,
    accumulate: bool = True,
    critical: Critical = "bound",
) -> PaperAccount:
    """Step k = 1..K of `model`, or inference where `step` is None.

    Without gradient accumulation (`accumulate`) the whole support set is one batch of `sample_batch` samples.
    """
    account = _Account(model, step, critical)
    peak = max(account.moments(), key=lambda moment: moment.bits)
    updated = [layer for layer in model.graph.layers if account.updates(layer)]
    return PaperAccount(
        sample_batch=sample_batch,
        peak_node=peak.node,
        stored_input_words=peak.stored_inputs,
        normalized_words=peak.normalized,
        derivative_bits=peak.derivative_bits,
        attention_words=peak.attention,
        live_words=peak.live,
        accumulator_words=account.updated_parameters if accumulate else 0,
        forward_macs=sum(_forward_macs(model.graph, node) for node in model.graph.nodes),
        weight_gradient_macs=sum(account.weight_gradient_macs(layer) for layer in updated),
        input_gradient_macs=sum(_input_gradient_macs(model.graph, layer) for layer in account.reached),
        attention_macs=sum(account.attention_sizes(layer)[1] for layer in updated),
    )


def paper_moments(model: Model, step: int | None, critical: Critical = "bound") -> tuple[Moment, ...]:
    """What memory holds at each node of the forward pass, in topological order; accumulators come on top."""
    return tuple(_Account(model, step, critical).moments())


@dataclass(frozen=True)
class Moment:
    """What memory holds while a node of the forward pass is computed, per sample; all but the bits in words."""

    node: str = ""
    stored_inputs: int = 0
    normalized: int = 0
    derivative_bits: int = 0
    attention: int = 0
    live: int = 0

    @property
    def bits(self) -> int:
        words = self.stored_inputs + self.normalized + self.attention + self.live
        return WORD_BITS * words + self.derivative_bits


class _Account:
    """What one step updates, and what follows for each layer."""

    def __init__(self, model: Model, step: int | None, critical: Critical) -> None:
        self._model, self._graph, self._critical = model, model.graph, critical
        self._learned = () if step is None else model.learned_in_step(step)
        self._updated = {weight.layer for weight in self._learned if weight.part == "weight"}
        learning = {weight.layer for weight in self._learned}
        layers = self._graph.layers
        lowest = next((n for n, layer in enumerate(layers) if layer.name in learning), len(layers))
        self.reached = layers[lowest:]  # from l_min on

    def updates(self, layer: Node) -> bool:
        """Whether its weight changes at the end of the step: α̂."""
        return layer.name in self._updated

    @property
    def updated_parameters(self) -> int:
        return sum(int(self._graph.weights[weight.name].size) for weight in self._learned)

    def moments(self) -> Iterator[Moment]:
        """One moment per node, in topological order; what is stored stays until the end."""
        moment, passes_gradient = Moment(), False
        for position, node in enumerate(self._graph.nodes):
            if self.updates(node):
                moment = self._with_stored(moment, node)
            if passes_gradient:
                bits = moment.derivative_bits + derivative_bits(self._graph, node)
                moment = replace(moment, derivative_bits=bits)
            passes_gradient = passes_gradient or node in self.reached
            moment = replace(moment, node=node.name, live=self._live_words(position))
            yield moment

    def _with_stored(self, before: Moment, layer: Node) -> Moment:
        """With what an updated layer stores for its weight gradient."""
        attention = before.attention + self.attention_sizes(layer)[0]
        kept = critical_channels(self._model, layer, self._critical)[0]
        words = kept * prod(self._graph.shapes[layer.input][1:])
        if isinstance(layer, GroupNorm):
            return replace(before, normalized=before.normalized + words, attention=attention)
        return replace(before, stored_inputs=before.stored_inputs + words, attention=attention)

    def _live_words(self, position: int) -> int:
        """Words of the activations that are live while node number `position` is computed."""
        nodes, shapes = self._graph.nodes, self._graph.shapes
        node = nodes[position]
        written = [self._graph.input, *(earlier.output for earlier in nodes[:position])]
        read_later = {name for later in nodes[position + 1 :] for name in later.inputs}
        staying = sum(prod(shapes[name]) for name in written if name in read_later)
        ending = sorted(prod(shapes[name]) for name in set(node.inputs) - read_later)
        if isinstance(node, Gemm) and self.updates(node):
            ending = []  # its input is stored, and read from there
        output = prod(shapes[node.output])
        return staying + sum(ending[:-1]) + max([output, *ending[-1:]])

    def attention_sizes(self, layer: Node) -> tuple[int, int]:
        """(words, MACs) of the meta attention of a layer: C and C·H·W + 2C² for either direction (Appendix A.1.2)."""
        modules = self._model.adaptation.attention.get(layer.name)
        if modules is None:
            return 0, 0
        asked = ((modules.fw, layer.input), (modules.bw, layer.output))
        shapes = [self._graph.shapes[name] for module, name in asked if module is not None]
        return sum(shape[0] for shape in shapes), sum(prod(shape) + 2 * shape[0] ** 2 for shape in shapes)

    def weight_gradient_macs(self, layer: Node) -> int:
        shape = self._graph.shapes[layer.input]
        channels, kept = layer.attention_channels(shape), critical_channels(self._model, layer, self._critical)
        dense = 3 * prod(shape) if isinstance(layer, GroupNorm) else layer.forward_macs(shape)
        return -(-dense * prod(kept) // prod(channels))


def _forward_macs(graph: Graph, node: Node) -> int:
    shape = graph.shapes[node.input]
    if isinstance(node, (AveragePool, GlobalAveragePool)):
        return prod(shape)
    if isinstance(node, GroupNorm):
        return 5 * prod(shape)
    return node.forward_macs(shape) if isinstance(node, (Conv, Gemm)) else 0


def _input_gradient_macs(graph: Graph, layer: Node) -> int:
    """Of a layer that the backward pass reaches."""
    shape = graph.shapes[layer.input]
    if isinstance(layer, GroupNorm):
        writer = next((node for node in graph.nodes if node.output == layer.input), None)
        return 0 if writer is not None and _is_first_conv(graph, writer) else 2 * prod(shape)
    return 0 if _is_first_conv(graph, layer) else layer.forward_macs(shape)


def _is_first_conv(graph: Graph, node: Node) -> bool:
    """Whether it is a convolution that reads the sample."""
    return isinstance(node, Conv) and node.input == graph.input
