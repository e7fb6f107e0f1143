"""The inner loop as a plain loop over micro-batches: torch.autograd alone, no vmap, no probes, nothing of the trainer.

For 4Conv with two blocks. What a method changes is one line each, written as the paper has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pmeta.codegen.graph import Graph
from pmeta.codegen.operators import Conv, Gemm, GroupNorm

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class PlainLoop:
    """The same settings as the trainer's inner loop."""

    graph: Graph
    steps: int
    rho_fw: int
    rho_bw: int
    first_order: bool = False

    def trajectory(self, meta: dict[str, Any], x: Tensor, y: Tensor, micro_batch: int) -> list[Tensors]:
        """The weights after each step. x: (N, C, H, W), y: (N, ways) one-hot; `meta` as the trainer's."""
        weights, trajectory = dict(meta["weights"]), []
        for k in range(self.steps):
            total = {name: torch.zeros_like(w) for name, w in weights.items()}
            for start in range(0, len(x), micro_batch):
                part = slice(start, start + micro_batch)
                for name, gradient in self.gradients(meta, weights, x[part], y[part]).items():
                    total[name] = total[name] + gradient
            for number, layer in enumerate(self.graph.layers):
                for name in layer.weight_names:
                    weights[name] = weights[name] - meta["alpha"][number, k] * total[name] / len(x)
            trajectory.append(dict(weights))
        return trajectory

    def gradients(self, meta: dict[str, Any], weights: Tensors, x: Tensor, y: Tensor) -> Tensors:
        """γ ⊙ the gradients of the summed loss of one micro-batch, by weight."""
        logits, inputs, outputs = forward(self.graph, weights, x)
        loss = F.cross_entropy(logits, y.argmax(1), reduction="sum")
        wanted = list(weights.values()) + list(outputs.values())
        found = torch.autograd.grad(loss, wanted, create_graph=True)
        if self.first_order:
            found = tuple(gradient.detach() for gradient in found)
            inputs = {name: value.detach() for name, value in inputs.items()}
        dense = dict(zip([*weights, *outputs], found, strict=True))
        gradients = {name: dense[name] for name in weights}
        for layer in self.graph.layers:
            modules = meta["attention"].get(layer.name, {})
            one = torch.ones((), dtype=x.dtype)
            fw = gamma(modules["fw"], inputs[layer.name], self.rho_fw) if "fw" in modules else one
            bw = gamma(modules["bw"], dense[layer.name], self.rho_bw) if "bw" in modules else one
            rates = meta["channel_alpha"].get(layer.name, {"in": one, "out": one})
            gradients |= reweighted(layer, dense, fw * rates["in"], bw * rates["out"])
        return gradients


def forward(graph: Graph, weights: Tensors, x: Tensor) -> tuple[Tensor, Tensors, Tensors]:
    """One batch; also every layer's attention input and its output y_l, which autograd can differentiate by."""
    inputs, outputs = {}, {}
    epsilon = graph.nodes[1].epsilon  # type: ignore[attr-defined]
    for i in (1, 2):
        inputs[f"conv{i}"] = x
        x = outputs[f"conv{i}"] = F.conv2d(x, weights[f"conv{i}.weight"], padding=1)
        inputs[f"norm{i}"] = F.group_norm(x, 2, eps=epsilon)
        x = F.group_norm(x, 2, weights[f"norm{i}.weight"], weights[f"norm{i}.bias"], eps=epsilon)
        outputs[f"norm{i}"] = x
        x = F.max_pool2d(F.relu(x), 2)
    inputs["fc"] = x.flatten(1)
    outputs["fc"] = F.linear(inputs["fc"], weights["fc.weight"], weights["fc.bias"])
    return outputs["fc"], inputs, outputs


def gamma(module: Tensors, x: Tensor, rho: int) -> Tensor:
    """h of one micro-batch, with a straight-through Algorithm 1 written as a loop."""
    pooled = x.mean((2, 3)) if x.dim() == 4 else x
    scores = F.linear(F.relu(F.linear(pooled, module["w1"], module["b1"])), module["w2"], module["b2"])
    pi = torch.softmax(scores.mean(0), 0)
    channels = len(pi)
    values = pi.detach().clone()
    if rho and channels > 1:
        total, cut = 0.0, []
        for index in sorted(range(channels), key=lambda i: (values[i].item(), i)):
            if total >= rho / 1000 or len(cut) == channels - 1:
                break
            cut.append(index)
            total += values[index].item()
        values[cut] = 0.0
    return (values / values.sum() * channels - channels * pi).detach() + channels * pi


def reweighted(layer: Any, dense: Tensors, fw: Tensor, bw: Tensor) -> Tensors:
    """Eqs. 12 and 13; bias and shift take bw alone, the GroupNorm's scale both per channel.

    fw, bw: what weighs the input and output channels, γ·α^Ch: (C,) or ().
    """
    rows, columns = (factor.reshape(-1, 1) if factor.dim() else factor for factor in (bw, fw))
    match layer:
        case Conv():
            both = rows * (columns.T if columns.dim() else columns)
            return {layer.weight: dense[layer.weight] * (both[..., None, None] if both.dim() else both)}
        case GroupNorm():
            return {layer.scale: dense[layer.scale] * fw * bw, layer.shift: dense[layer.shift] * bw}
        case Gemm():
            return {layer.weight: dense[layer.weight] * rows * fw, layer.bias: dense[layer.bias] * bw}
    raise AssertionError(layer)
