"""Forward and backward of one sample: pure functions of the weights, with everything they computed on record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import Adaptation, InputEncoding, LayerAttention, LearnedWeight, Model
from pmeta.codegen.graph import Float32Array, Graph, Node
from pmeta.codegen.numerics import STRICT, Numerics
from pmeta.codegen.storage import finished_maps, is_sample
from pmeta.codegen.targets import Target
from pmeta.host.simulator.attention import attention
from pmeta.host.simulator.operators import SIMULATED, SIMULATED_LAYERS, SIMULATED_LOSSES
from pmeta.host.simulator.operators.operator import Contribution, Gamma, Weights
from pmeta.host.simulator.storage import kept_rounding, map_rounding


@dataclass(frozen=True)
class ForwardPass:
    """What the forward pass of one sample left behind."""

    logits: Float32Array  # (ways,)
    saved: Mapping[str, Any]  # by node name, what its operator saves: inputs, x̂, where a ReLU is +0, pool winners


@dataclass(frozen=True)
class SupportSample:
    """A support sample, as far as it does not depend on the other ones of its micro-batch."""

    forward: ForwardPass
    target: Target
    loss: np.float32
    g: Float32Array  # gradient of the logits


@dataclass(frozen=True)
class SamplePass:
    """Everything one sample led to in one step; what a search for a difference looks at."""

    forward: ForwardPass
    loss: np.float32
    gammas: Mapping[str, Gamma]  # by layer name, of the layers updated in this step
    contributions: Mapping[str, Contribution]  # by weight name, of the weights updated in this step


def decode(sample: npt.NDArray[Any], encoding: InputEncoding) -> Float32Array:
    """The network's input, (C, H, W) or (C,), of a sample as it travels."""
    values = sample.astype(np.float32)
    if encoding.kind == "float32":
        return values
    per_channel = (-1,) + (1,) * (sample.ndim - 1)
    scale, offset = (np.array(v, np.float32).reshape(per_channel) for v in (encoding.scale, encoding.offset))
    return values * scale + offset


def run_forward(model: Model, weights: Weights, x: Float32Array, numerics: Numerics = STRICT) -> ForwardPass:
    """The forward pass of one decoded sample."""
    saved: dict[str, Any] = {}
    finished, rounded = finished_maps(model.graph), map_rounding(model.adaptation.storage)
    activations = {model.graph.input: x}
    for node in model.graph.nodes:
        inputs = [activations[name] for name in node.inputs]
        y, saved[node.name] = SIMULATED[numerics][type(node)].join(node, weights, inputs)
        activations[node.output] = rounded(y) if node.output in finished else y
    return ForwardPass(activations[model.graph.output], saved)


def run_support(
    model: Model, weights: Weights, x: Float32Array, target: Target, numerics: Numerics = STRICT
) -> SupportSample:
    """Forward pass and loss of one decoded sample."""
    forward = run_forward(model, weights, x, numerics)
    return SupportSample(forward, target, *SIMULATED_LOSSES[model.adaptation.loss](forward.logits, target))


def run_batch(
    model: Model, weights: Weights, step: int, batch: Sequence[SupportSample], numerics: Numerics = STRICT
) -> tuple[SamplePass, ...]:
    """Backward down to the lowest layers that are updated in `step` (1..K), of each sample of a micro-batch.

    What the samples share is meta attention, which averages over them.
    """
    learned = model.learned_in_step(step)
    learning = {weight.layer for weight in learned}
    gradients = [_output_gradients(model, weights, learning, sample, numerics) for sample in batch]
    gammas = {
        node.name: _gamma(model.adaptation, node, batch, [found[node.output] for found in gradients])
        for node in model.graph.layers
        if node.name in learning
    }
    return tuple(
        SamplePass(sample.forward, sample.loss, gammas, _contributions(model, learned, sample, found, gammas, numerics))
        for sample, found in zip(batch, gradients, strict=True)
    )


def _output_gradients(
    model: Model, weights: Weights, learning: set[str], sample: SupportSample, numerics: Numerics
) -> dict[str, Float32Array]:
    """The gradient of every activation that depends on the weights of `learning` layers."""
    graph, rounded = model.graph, kept_rounding(model.adaptation.storage)
    depends = _depend_on(graph, learning)
    gradients = {graph.output: sample.g}
    for node in reversed(graph.nodes):
        if node.output not in depends or not depends.intersection(node.inputs):
            continue
        operator = SIMULATED[numerics][type(node)]
        kept = operator.kept(sample.forward.saved[node.name], rounded)
        found = operator.input_gradients(node, weights, kept, gradients[node.output])
        for name, gx in zip(node.inputs, found, strict=True):
            gradients[name] = gradients[name] + gx if name in gradients else gx
    return gradients


def _contributions(
    model: Model,
    learned: Sequence[LearnedWeight],
    sample: SupportSample,
    gradients: Mapping[str, Float32Array],
    gammas: Mapping[str, Gamma],
    numerics: Numerics,
) -> dict[str, Contribution]:
    """What the sample adds to each accumulator."""
    rounded = kept_rounding(model.adaptation.storage)
    nodes = {node.name: node for node in model.graph.layers}
    contributions = {}
    for weight in learned:
        node, gamma = nodes[weight.layer], gammas[weight.layer]
        operator = SIMULATED_LAYERS[numerics][type(node)]
        of_sample = is_sample(model.graph, node.input)
        kept = operator.kept_for_weights(sample.forward.saved[node.name], rounded, gamma.fw, of_sample)
        contributions[weight.name] = operator.contribution(node, kept, gradients[node.output], gamma, weight.part)
    return contributions


def _depend_on(graph: Graph, layers: set[str]) -> set[str]:
    """The activations that depend on the weights of these layers: their gradients are needed, and no others."""
    depends: set[str] = set()
    for node in graph.nodes:
        if node.name in layers or depends.intersection(node.inputs):
            depends.add(node.output)
    return depends


def _gamma(
    adaptation: Adaptation, node: Node, batch: Sequence[SupportSample], gradients: Sequence[Float32Array]
) -> Gamma:
    """Of one layer for a micro-batch; `gradients` are those of its output."""
    modules = adaptation.attention.get(node.name, LayerAttention(None, None))
    operator = SIMULATED_LAYERS[STRICT][type(node)]  # what it looks at, no variant changes
    attended = [operator.attended(sample.forward.saved[node.name]) for sample in batch]
    return Gamma(
        fw=None if modules.fw is None else attention(modules.fw, attended, adaptation.rho_fw),
        bw=None if modules.bw is None else attention(modules.bw, gradients, adaptation.rho_bw),
    )
