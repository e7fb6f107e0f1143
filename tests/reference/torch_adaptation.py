"""Adaptation in PyTorch with autograd: an interpretation of the graph that shares nothing with trainer or simulator.

It makes a model's discrete decisions itself (which channels attention keeps, where a ReLU passes, which pixel wins
a pooling window), or follows decisions it is given, so that the smooth rest can be compared closely. How closely, it
tells, too: with `noise` every intermediate result, forward and backward, is a little off, at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from pmeta.codegen.adaptation import AttentionModule, Model
from pmeta.codegen.graph import Node
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
)
from pmeta.codegen.targets import Target, targets_of
from tests.reference.noise import Noise, NoisyNormalization, perturbed

Weights = dict[str, Tensor]


@dataclass
class Decisions:
    """The discrete decisions of one sample, by node name."""

    passes: dict[str, Tensor] = field(default_factory=dict)  # ReLU and its like: bool, where the input passes
    winners: dict[str, Tensor] = field(default_factory=dict)  # max-pool: (C, H', W'), row·W + column
    kept_fw: dict[str, Tensor] = field(default_factory=dict)  # attention: bool (C,)
    kept_bw: dict[str, Tensor] = field(default_factory=dict)  # bool (F,)


@dataclass(frozen=True)
class SampleGradients:
    """What one sample leads to."""

    logits: Tensor  # (ways,)
    loss: float
    gradients: Weights  # by weight name, attention applied
    decisions: Decisions
    activations: Weights  # by name, (1, ...) each
    importances: Weights  # attention's π (C,), by direction and layer: "fw conv1"


def initial_weights(model: Model, dtype: torch.dtype) -> Weights:
    return {name: torch.tensor(array, dtype=dtype) for name, array in model.graph.weights.items()}


def decode(model: Model, samples: npt.NDArray[np.generic], dtype: torch.dtype) -> Tensor:
    """Network inputs (N, ...) of samples (N, ...) as they travel."""
    encoding = model.adaptation.encoding
    x = torch.tensor(np.asarray(samples, np.float32))
    if encoding.kind == "uint8":
        per_channel = (-1,) + (1,) * (x.ndim - 2)
        x = x * torch.tensor(encoding.scale).reshape(per_channel) + torch.tensor(encoding.offset).reshape(per_channel)
    return x.to(dtype)


def sample_gradients(
    model: Model,
    weights: Weights,
    step: int,
    x: Tensor,
    target: Target,
    forced: Decisions | None = None,
    noise: Noise = None,
) -> SampleGradients:
    """Gradients of the loss of one decoded sample for what is updated in `step` (1..K), weighed by attention."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    decisions = Decisions()
    activations = _forward(model, leaves, x[None], decisions, forced, noise)
    loss = _loss(activations[model.graph.output][0], target, noise)
    learned = list(_learned(model, step))
    outputs = [activations[layer.output] for layer, _, _ in learned]
    found = torch.autograd.grad(loss, [leaves[name] for _, name, _ in learned] + outputs) if learned else ()
    gradients: Weights = {}
    importances: Weights = {}
    for (layer, name, part), gradient, gy in zip(learned, found, found[len(learned) :], strict=False):
        x = activations[layer.input].detach()[0]
        fw, bw = _gammas(model, layer, x, gy[0], decisions, importances, forced, noise)
        gradients[name] = perturbed(_weighed(gradient, fw, bw, part, isinstance(layer, GroupNorm)), noise)
    activations = {name: activation.detach() for name, activation in activations.items()}
    logits = activations[model.graph.output][0]
    return SampleGradients(logits, loss.item(), gradients, decisions, activations, importances)


def adapt(model: Model, support_x: Tensor, support_y: npt.NDArray[np.generic]) -> Weights:
    """The weights after all K steps, every decision its own."""
    weights = initial_weights(model, support_x.dtype)
    for step in range(1, model.adaptation.steps + 1):
        totals: Weights = {}
        for x, target in zip(support_x, targets_of(support_y), strict=True):
            for name, gradient in sample_gradients(model, weights, step, x, target).gradients.items():
                totals[name] = totals.get(name, 0) + gradient
        weights = updated(model, weights, totals, step, len(support_x))
    return weights


def updated(model: Model, weights: Weights, totals: Weights, step: int, samples: int) -> Weights:
    """The weights after `step`, from gradients summed over its samples."""
    alpha = {layer.name: float(model.adaptation.alpha[i, step - 1]) for i, layer in enumerate(model.graph.layers)}
    steps = {
        name: alpha[layer.name] / samples * _by_channel(model, layer, part, totals[name])
        for layer, name, part in _learned(model, step)
    }
    return {name: weight - steps[name] if name in steps else weight for name, weight in weights.items()}


def _by_channel(model: Model, layer: Node, part: str, total: Tensor) -> Tensor:
    """A summed gradient with the layer's step sizes per channel, one output channel after another."""
    adaptation = model.adaptation
    rows = total.clone()
    if layer.name in adaptation.alpha_out:
        for row, rate in zip(rows, adaptation.alpha_out[layer.name].tolist(), strict=True):
            row *= rate
    if part == "weight" and layer.name in adaptation.alpha_in:
        rates = torch.tensor(adaptation.alpha_in[layer.name], dtype=total.dtype)
        if isinstance(layer, GroupNorm):
            return rows * rates
        groups = layer.groups if isinstance(layer, Conv) else 1
        for own, of_group in zip(rows.chunk(groups), rates.chunk(groups), strict=True):
            own *= of_group.reshape(-1, *[1] * (total.dim() - 2))
    return rows


@torch.no_grad()
def predict(model: Model, weights: Weights, x: Tensor) -> Tensor:
    """Logits (N, ways) of decoded queries (N, ...)."""
    return _forward(model, weights, x, None, None, None)[model.graph.output]


def _learned(model: Model, step: int) -> Iterator[tuple[Node, str, str]]:
    """(layer, weight name, "weight" or "bias") of all that `step` updates."""
    for index, layer in enumerate(model.graph.layers):
        for name, part in zip(layer.weight_names, ("weight", "bias"), strict=False):
            if model.learns(index, part, step):  # type: ignore[arg-type]
                yield layer, name, part


# --- forward -------------------------------------------------------------------------------------------------


def _forward(
    model: Model,
    weights: Mapping[str, Tensor],
    x: Tensor,
    made: Decisions | None,
    forced: Decisions | None,
    noise: Noise,
) -> dict[str, Tensor]:
    """All activations of a batch by name; notes the decisions in `made` (batches of one sample only)."""
    activations = {model.graph.input: x}
    for node in model.graph.nodes:
        inputs = [perturbed(activations[name], noise) for name in node.inputs]
        activations[node.output] = _node(node, weights, inputs, made, forced, noise)
    return activations


def _loss(outputs: Tensor, target: Target, noise: Noise) -> Tensor:
    """Of the outputs (ways,) of one sample.

    The gradient of cross-entropy is a difference, p − 1; its two terms are perturbed before they are subtracted.
    """
    if isinstance(target, int):
        return perturbed(outputs, noise).logsumexp(0) - perturbed(outputs, noise)[target]
    return F.mse_loss(perturbed(outputs, noise), torch.tensor(target, dtype=outputs.dtype))


def _node(
    node: Node,
    weights: Mapping[str, Tensor],
    inputs: list[Tensor],
    made: Decisions | None,
    forced: Decisions | None,
    noise: Noise,
) -> Tensor:
    x = inputs[0]
    match node:
        case Add():
            return x + inputs[1]
        case AveragePool():
            return _average_pool(node, x)
        case GlobalAveragePool():
            return x.mean((2, 3), keepdim=True)
        case Concat():
            return torch.cat(inputs, 1)
        case Conv(window=window):
            bias = None if node.bias is None else weights[node.bias]
            padded = F.pad(x, _pads(node))
            return F.conv2d(padded, weights[node.weight], bias, window.stride, 0, window.dilation, node.groups)
        case Gemm():
            return F.linear(x, weights[node.weight], None if node.bias is None else weights[node.bias])
        case GroupNorm():
            per_channel = (-1,) + (1,) * (x.ndim - 2)
            scale, shift = (weights[name].reshape(per_channel) for name in (node.scale, node.shift))
            return perturbed(_normalized(x, node.groups, node.epsilon, noise), noise) * scale + shift
        case Flatten():
            return x.flatten(1)
        case Relu():
            return _relu(node, x, 0.0, made, forced)
        case LeakyRelu():
            return _relu(node, x, node.alpha, made, forced)
        case Sigmoid():
            y = perturbed(x.detach().sigmoid(), noise)
            return _with_slope(x, y, y * (1 - y))
        case Tanh():
            y = perturbed(x.detach().tanh(), noise)
            return _with_slope(x, y, 1 - y * y)
        case Clip():
            return _clip(node, x, made, forced)
        case HardSwish():
            return _hard_swish(node, x, made, forced)
        case MaxPool():
            return _max_pool(node, x, made, forced)
    raise NotImplementedError(type(node).__name__)


def _normalized(x: Tensor, groups: int, epsilon: float, noise: Noise) -> Tensor:
    """x̂ of (N, C, ...). (F.group_norm would refuse groups of one element.)"""
    grouped = x.reshape(x.shape[0], groups, -1)
    if noise is not None:
        x_hat: Tensor = NoisyNormalization.apply(grouped, epsilon, noise)
        return x_hat.reshape(x.shape)
    d = grouped - grouped.mean(2, keepdim=True)
    return (d / ((d * d).mean(2, keepdim=True) + epsilon).sqrt()).reshape(x.shape)


def _with_slope(x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """y, whose gradient for x is `slope`, as the device computes it from y."""
    return y.detach() + (x - x.detach()) * slope.detach()


def _relu(node: Node, x: Tensor, alpha: float, made: Decisions | None, forced: Decisions | None) -> Tensor:
    if made is not None:
        made.passes[node.name] = (x > 0)[0]
    return F.leaky_relu(x, alpha) if forced is None else torch.where(forced.passes[node.name], x, alpha * x)


def _clip(node: Clip, x: Tensor, made: Decisions | None, forced: Decisions | None) -> Tensor:
    passes = (x > node.min) & (x < node.max)
    if made is not None:
        made.passes[node.name] = passes[0]
    return torch.where(forced.passes[node.name] if forced else passes, x, x.detach().clamp(node.min, node.max))


def _hard_swish(node: HardSwish, x: Tensor, made: Decisions | None, forced: Decisions | None) -> Tensor:
    """It decides twice: whether x lies above −3, and whether below 3."""
    above, below = x > -3, x < 3
    if made is not None:
        made.passes[node.name] = torch.stack([above[0], below[0]])
    if forced is not None:
        above, below = forced.passes[node.name]
    return torch.where(above, torch.where(below, x * (x + 3) / 6, x), 0 * x.detach())


def _max_pool(node: MaxPool, x: Tensor, made: Decisions | None, forced: Decisions | None) -> Tensor:
    window = node.window
    left, _, top, _ = _pads(node)
    padded = F.pad(x, _pads(node), value=-torch.inf)
    y, winners = F.max_pool2d(padded, window.kernel, window.stride, 0, window.dilation, return_indices=True)
    rows, columns = winners // padded.shape[3] - top, winners % padded.shape[3] - left
    if made is not None:
        made.winners[node.name] = (rows * x.shape[3] + columns)[0]
    if forced is None:
        return y
    return x.flatten(2).gather(2, forced.winners[node.name].flatten(1)[None]).reshape(y.shape)


def _average_pool(node: AveragePool, x: Tensor) -> Tensor:
    """As a convolution with ones: F.avg_pool2d knows neither dilation nor one-sided padding."""
    ones = torch.ones(x.shape[1], 1, *node.window.kernel, dtype=x.dtype)

    def sums(values: Tensor) -> Tensor:
        padded = F.pad(values, _pads(node))
        return F.conv2d(padded, ones, None, node.window.stride, dilation=node.window.dilation, groups=x.shape[1])

    return sums(x) / (ones[0].numel() if node.count_include_pad else sums(torch.ones_like(x)))


def _pads(node: AveragePool | Conv | MaxPool) -> tuple[int, int, int, int]:
    """(left, right, top, bottom), as F.pad wants them."""
    before, after = node.window.pad_before, node.window.pad_after
    return before[1], after[1], before[0], after[0]


# --- attention -----------------------------------------------------------------------------------------------


def _gammas(
    model: Model,
    layer: Node,
    x: Tensor,
    gy: Tensor,
    made: Decisions,
    importances: Weights,
    forced: Decisions | None,
    noise: Noise,
) -> tuple[Tensor | None, Tensor | None]:
    """(γ^fw, γ^bw) of a layer from its input and the gradient of its output, one sample each; notes what it decides."""
    modules = model.adaptation.attention.get(layer.name)
    if modules is None:
        return None, None
    if isinstance(layer, GroupNorm):
        x = _normalized(x[None], layer.groups, layer.epsilon, noise)[0]
    fw = bw = None
    if modules.fw is not None:
        kept = None if forced is None else forced.kept_fw[layer.name]
        pi = importances[f"fw {layer.name}"] = _importance(modules.fw, x, noise)
        fw, made.kept_fw[layer.name] = _clipped(pi, model.adaptation.rho_fw, kept)
    if modules.bw is not None:
        kept = None if forced is None else forced.kept_bw[layer.name]
        pi = importances[f"bw {layer.name}"] = _importance(modules.bw, gy, noise)
        bw, made.kept_bw[layer.name] = _clipped(pi, model.adaptation.rho_bw, kept)
    return fw, bw


def _importance(module: AttentionModule, values: Tensor, noise: Noise) -> Tensor:
    """π (C,) of `values` (C, ...)."""
    w1, b1, w2, b2 = (torch.tensor(p, dtype=values.dtype) for p in (module.w1, module.b1, module.w2, module.b2))
    values = perturbed(values, noise)
    average = values.flatten(1).mean(1) if values.ndim > 1 else values
    hidden = perturbed((w1 @ average + b1).relu(), noise)
    return perturbed(perturbed(w2 @ hidden + b2, noise).softmax(0), noise)


def _clipped(pi: Tensor, rho: int, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """(γ (C,), the channels it keeps)."""
    if kept is None:
        kept = _kept(pi, rho)
    clipped = torch.where(kept, pi, 0)
    return clipped / clipped.sum() * len(pi), kept


def _kept(pi: Tensor, rho: int) -> Tensor:
    """Algorithm 1 of the paper: clip the smallest until their sum reaches ρ (in thousandths), within its bounds."""
    channels = len(pi)
    kept = torch.ones(channels, dtype=torch.bool)
    if rho > 0 and channels > 1:
        ascending, order = pi.sort(stable=True)
        below = int((ascending.cumsum(0) < rho / 1000).sum())
        count = min(max(below + 1, (rho * channels + 999) // 1000), channels - 1)
        kept[order[:count]] = False
    return kept


def _weighed(gradient: Tensor, fw: Tensor | None, bw: Tensor | None, part: str, per_channel: bool) -> Tensor:
    """γ applied to a gradient: (F, C/groups, ...) of a weight, (F,) of a bias, (C,) of a scale (`per_channel`)."""
    if bw is not None:
        gradient = gradient * bw.reshape([-1] + [1] * (gradient.ndim - 1))
    if fw is not None and part == "weight":
        if not per_channel:
            by_group = fw.reshape(-1, gradient.shape[1])
            of_filters = by_group.repeat_interleave(len(gradient) // len(by_group), 0)
            fw = of_filters.reshape([*of_filters.shape] + [1] * (gradient.ndim - 2))
        gradient = gradient * fw
    return gradient
