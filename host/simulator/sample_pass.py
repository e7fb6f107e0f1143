"""Forward and backward of one sample: pure functions of the weights, with everything they computed on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pmeta.codegen.adaptation import Adaptation, InputEncoding, LayerAttention, Model
from pmeta.codegen.graph import Float32Array, Graph
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


def run_forward(model: Model, weights: Weights, x: Float32Array) -> ForwardPass:
    """The forward pass of one decoded sample."""
    saved: dict[str, Any] = {}
    finished, rounded = finished_maps(model.graph), map_rounding(model.adaptation.storage)
    activations = {model.graph.input: x}
    for node in model.graph.nodes:
        inputs = [activations[name] for name in node.inputs]
        y, saved[node.name] = SIMULATED[type(node)].join(node, weights, inputs)
        activations[node.output] = rounded(y) if node.output in finished else y
    return ForwardPass(activations[model.graph.output], saved)


def run_sample(model: Model, weights: Weights, step: int, x: Float32Array, target: Target) -> SamplePass:
    """Forward, loss, and backward down to the lowest layers that are updated in `step` (1..K)."""
    forward = run_forward(model, weights, x)
    loss, g = SIMULATED_LOSSES[model.adaptation.loss](forward.logits, target)
    learned = model.learned_in_step(step)
    learning = {weight.layer for weight in learned}
    depends, rounded = _depend_on(model.graph, learning), kept_rounding(model.adaptation.storage)
    gradients = {model.graph.output: g}
    gammas: dict[str, Gamma] = {}
    contributions: dict[str, Contribution] = {}
    for node in reversed(model.graph.nodes):
        if node.output not in depends:
            continue
        gy, saved = gradients.pop(node.output), forward.saved[node.name]
        if node.name in learning:
            operator = SIMULATED_LAYERS[type(node)]
            gammas[node.name] = gamma = _gamma(model.adaptation, node.name, operator.attended(saved), gy)
            kept = operator.kept_for_weights(saved, rounded, gamma.fw, is_sample(model.graph, node.input))
            for weight in learned:
                if weight.layer == node.name:
                    contributions[weight.name] = operator.contribution(node, kept, gy, gamma, weight.part)
        if depends.intersection(node.inputs):
            kept = SIMULATED[type(node)].kept(saved, rounded)
            found = SIMULATED[type(node)].input_gradients(node, weights, kept, gy)
            for name, gx in zip(node.inputs, found, strict=True):
                gradients[name] = gradients[name] + gx if name in gradients else gx
    return SamplePass(forward, loss, gammas, contributions)


def _depend_on(graph: Graph, layers: set[str]) -> set[str]:
    """The activations that depend on the weights of these layers: their gradients are needed, and no others."""
    depends: set[str] = set()
    for node in graph.nodes:
        if node.name in layers or depends.intersection(node.inputs):
            depends.add(node.output)
    return depends


def _gamma(adaptation: Adaptation, layer: str, attended: Float32Array, gy: Float32Array) -> Gamma:
    modules = adaptation.attention.get(layer, LayerAttention(None, None))
    return Gamma(
        fw=None if modules.fw is None else attention(modules.fw, attended, adaptation.rho_fw),
        bw=None if modules.bw is None else attention(modules.bw, gy, adaptation.rho_bw),
    )
