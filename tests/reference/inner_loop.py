"""The inner loop as a plain loop over micro-batches: torch.autograd alone, nothing of the trainer.

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
    sparsify: str = "gradient"
    batch_norm: bool = False
    average_pool: bool = False

    def forward(self, weights: Tensors, x: Tensor) -> Tensor:
        """Logits of one batch."""
        return self._stages({}, weights, x)[-1].output

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
        """γ ⊙ α^Ch ⊙ the gradients of the summed loss of one micro-batch, by weight.

        Back through one stage after another, γ being constant there. First order: so are the weights.
        """
        if self.first_order:
            weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        stages = self._stages(meta["attention"], weights, x)
        loss = F.cross_entropy(stages[-1].output, y.argmax(1), reduction="sum")
        (g,) = torch.autograd.grad(loss, stages[-1].output, create_graph=True)
        layers = {layer.name: layer for layer in self.graph.layers}
        one = torch.ones((), dtype=x.dtype)
        gradients: Tensors = {}
        for stage in reversed(stages):
            if stage.name in layers:
                layer, modules = layers[stage.name], meta["attention"].get(stage.name, {})
                bw = gamma(modules["bw"], g, self.rho_bw) if "bw" in modules else one
                if self.sparsify == "output_gradient":
                    g, bw = g * _per_channel(bw, g), one
                own = [weights[name] for name in layer.weight_names]
                dense = dict(zip(layer.weight_names, _pulled(stage.output, own, g), strict=True))
                fw = one if self.sparsify == "input" or stage.fw is None else stage.fw
                rates = meta["channel_alpha"].get(stage.name, {"in": one, "out": one})
                gradients |= reweighted(layer, dense, fw * rates["in"], bw * rates["out"])
            if stage is stages[0]:
                break
            if self.sparsify == "input" and stage.fw is not None:
                (g,) = _pulled(stage.output, [stage.weighed], g)
                g = g * _per_channel(stage.fw, g)
                if stage.dense is not stage.input:
                    (g,) = _pulled(stage.dense, [stage.input], g)
            else:
                (g,) = _pulled(stage.output, [stage.input], g)
        return gradients

    def _stages(self, attention: dict[str, Any], weights: Tensors, x: Tensor) -> list[Stage]:
        """The forward pass of one batch."""
        stages: list[Stage] = []
        for i in (1, 2):
            kernel = weights[f"conv{i}.weight"]
            x = self._layer(stages, attention, f"conv{i}", x, x, lambda v, w=kernel: F.conv2d(v, w, padding=1))
            scale, shift = weights[f"norm{i}.weight"][:, None, None], weights[f"norm{i}.bias"][:, None, None]
            affine = lambda v, s=scale, t=shift: v * s + t  # noqa: E731
            x = self._layer(stages, attention, f"norm{i}", x, self._normalized(x), affine)
            y = (F.avg_pool2d if self.average_pool else F.max_pool2d)(F.relu(x), 2)
            stages.append(Stage(f"pool{i}", x, x, x, y, None))
            x = y
        flat = x.flatten(1)
        stages.append(Stage("flatten", x, x, x, flat, None))
        last = lambda v: F.linear(v, weights["fc.weight"], weights["fc.bias"])  # noqa: E731
        self._layer(stages, attention, "fc", flat, flat, last)
        return stages

    def _layer(
        self, stages: list[Stage], attention: dict[str, Any], name: str, x: Tensor, attended: Tensor, linear: Any
    ) -> Tensor:
        """Appends a layer; attended: what its weights are applied to (x, or x̂)."""
        module = attention.get(name, {}).get("fw")
        fw = None if module is None else gamma(module, attended, self.rho_fw)
        sparse = self.sparsify == "input" and fw is not None
        weighed = attended * _per_channel(fw, attended) if sparse else attended
        stages.append(Stage(name, x, attended, weighed, linear(weighed), fw))
        return stages[-1].output

    def _normalized(self, x: Tensor) -> Tensor:
        epsilon = self.graph.nodes[1].epsilon  # type: ignore[attr-defined]
        if self.batch_norm:
            return F.batch_norm(x, None, None, training=True, eps=epsilon)
        return F.group_norm(x, 2, eps=epsilon)


@dataclass(frozen=True)
class Stage:
    """One layer, or what lies between two."""

    name: str
    input: Tensor
    dense: Tensor  # what the weights are applied to, before attention
    weighed: Tensor  # and after it, where it weighs maps
    output: Tensor
    fw: Tensor | None  # γ^fw (C,)


def _pulled(output: Tensor, inputs: list[Tensor], g: Tensor) -> tuple[Tensor, ...]:
    """Gradients of `inputs`, given that of `output`."""
    return torch.autograd.grad(output, inputs, g, create_graph=True)


def _per_channel(factor: Tensor, x: Tensor) -> Tensor:
    """(C,) or () so that it broadcasts over x (N, C, ...)."""
    return factor.reshape(-1, *[1] * (x.dim() - 2)) if factor.dim() else factor


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
