"""The inner loop: K gradient steps on the support set, driven by a table of step sizes.

MAML, ANIL, BOIL, MAML++ and both p-Metas are settings of this one function: the table α is fixed or learned, dense
or sparse, for all layers or some, and layers have meta attention, step sizes per channel (α^Ch), or neither. The
micro-batch size is one more setting: the full support set in training, the device's (usually 1) in evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pmeta.codegen.graph import Graph, Node
from pmeta.trainer.attention import channel_weights, scaled
from pmeta.trainer.methods import Sparsify
from pmeta.trainer.network_variants import has_batch_statistics
from pmeta.trainer.networks import Network
from pmeta.trainer.operators import Applied, Tensors, reweighted

# weights, attention and channel_alpha by name, alpha (L, K): a pytree that torch.func differentiates.
MetaParameters = dict[str, Any]


@dataclass(frozen=True)
class LayerPass:
    """What one layer's weight gradients follow from, for N support samples."""

    layer: Node
    applied: Applied  # in the forward pass
    g: Tensor  # g(y_l), (N, ...)
    fw: Tensor | None  # γ^fw and γ^bw yet to apply, (N, C); None: none
    bw: Tensor | None

    @property
    def x(self) -> Tensor:
        """What its weights are applied to (N, ...): x_{l-1}, of a normalization x̂."""
        return self.applied.weighed


@dataclass(frozen=True)
class InnerLoop:
    """What is fixed while a task is learned; what is meta-learned travels as `MetaParameters`:

    {"weights": {name: tensor}, "alpha": (L, K), "attention": {layer: {"fw" | "bw": {w1, b1, w2, b2}}},
     "channel_alpha": {layer: {"in" | "out": (C,)}}}

    "channel_alpha" may be missing: no layer has step sizes per channel.
    """

    network: Network
    steps: int  # K
    learning: frozenset[str]  # names of the weights that may learn; layers without any are skipped altogether
    rho_fw: int  # thousandths
    rho_bw: int
    first_order: bool = False  # x_{l-1} and g(y_l) count as constants when the outer loop differentiates
    sparsify: Sparsify = "gradient"  # what attention weighs

    @property
    def graph(self) -> Graph:
        return self.network.graph

    def may_learn(self, node: Node) -> bool:
        """Whether any of the node's weights may learn."""
        return not self.learning.isdisjoint(node.weight_names)

    @property
    def lowest(self) -> int:
        """Position of the lowest node that learns; their number where none does.

        0 with batch statistics: they are a task's, so tasks have no nodes in common.
        """
        if has_batch_statistics(self.graph):
            return 0
        nodes = self.graph.nodes
        return next((position for position, node in enumerate(nodes) if self.may_learn(node)), len(nodes))

    def adapt(
        self, meta: MetaParameters, support_x: Tensor, support_y: Tensor, micro_batch: int | None = None
    ) -> Tensors:
        """The weights after K steps. support_x: (N, C, H, W), support_y: (N, ways) one-hot."""
        features = self.network.below(meta["weights"], support_x, self.lowest)
        return list(self.trajectory(meta, features, support_y, micro_batch))[-1]

    def trajectory(
        self, meta: MetaParameters, features: Tensors, support_y: Tensor, micro_batch: int | None = None
    ) -> Iterator[Tensors]:
        """The weights after each of the K steps (Eq. 14, with gradient accumulation over micro-batches).

        features: what the network computes of the support samples below its lowest layer that learns
        (`Network.below`), the same in every step.
        """
        weights: Tensors = dict(meta["weights"])
        samples = support_y.shape[0]
        step_sizes = (meta["alpha"] / samples).unbind(1)
        for k in range(self.steps):
            gradients = self._support_gradients(meta, weights, features, support_y, micro_batch or samples)
            for layer, step_size in zip(self.graph.layers, step_sizes[k].unbind(), strict=True):
                for name in layer.weight_names:
                    if name in self.learning:
                        weights = weights | {name: weights[name] - step_size * gradients[name]}
            yield weights

    def _support_gradients(
        self, meta: MetaParameters, weights: Tensors, features: Tensors, y: Tensor, micro_batch: int
    ) -> Tensors:
        """γ ⊙ α^Ch ⊙ gradient of the summed per-sample losses, accumulated over all micro-batches."""
        gradients: Tensors = {}
        for found in self.layer_passes(meta, weights, features, y, micro_batch):
            own = self._reweighted_gradients(found, weights, micro_batch)
            # α^Ch acts like an attention that is the same for all samples.
            static: Mapping[str, Tensor] = meta.get("channel_alpha", {}).get(found.layer.name, {})
            gradients |= reweighted(found.layer, own, static.get("in"), static.get("out"))
        return gradients

    def layer_passes(
        self, meta: MetaParameters, weights: Tensors, features: Tensors, y: Tensor, micro_batch: int
    ) -> list[LayerPass]:
        """What the weight gradients of every layer that may learn follow from, for all support samples.

        features: what the lowest layer that learns, and those after it, read of what comes before, for all samples.
        Samples do not see each other except through γ and batch normalization, so all micro-batches run as one batch.
        First order: what is computed from the weights is a constant; γ still depends on its own parameters.
        """
        if not self.learning:
            return []
        if self.first_order:
            features, weights = (
                {name: value.detach() for name, value in values.items()} for values in (features, weights)
            )
        learning = {layer.name: layer for layer in self.graph.layers if self.may_learn(layer)}
        fw, bw = (partial(self._gamma, meta["attention"], side, micro_batch) for side in ("fw", "bw"))
        weighs_input, weighs_g = self.sparsify == "input", self.sparsify == "output_gradient"
        network = self.network.in_micro_batches(micro_batch)
        recording = network.recorded(weights, features, self.lowest, fw if weighs_input else None)
        g = torch.softmax(recording.output, dim=-1) - y  # of the summed cross-entropy
        found = recording.gradients(g, learning.keys(), bw if weighs_g else None)
        return [
            LayerPass(
                learning[name], applied, g_output,
                None if weighs_input else fw(name, applied.weighed), None if weighs_g else bw(name, g_output),
            )
            for name, (applied, g_output) in found.items()
        ]  # fmt: skip

    def _gamma(
        self, attention: Mapping[str, Any], side: str, micro_batch: int, layer: str, values: Tensor
    ) -> Tensor | None:
        """γ (N, C) of one direction of a layer, from the values that it attends to; None where it has none."""
        module: Mapping[str, Tensor] | None = attention.get(layer, {}).get(side)
        if module is None:
            return None
        return channel_weights(module, values, micro_batch, self.rho_fw if side == "fw" else self.rho_bw)

    def _reweighted_gradients(self, found: LayerPass, weights: Tensors, micro_batch: int) -> Tensors:
        """A layer's weight gradients, summed over the samples and weighed by γ^fw and γ^bw."""
        layer, x, g = found.layer, found.x, found.g
        gammas = found.fw, found.bw
        if micro_batch >= len(x):  # one γ for all samples
            short = found.applied.weight_gradients
            gradients = short(g) if short else self.network.weight_gradients(layer, weights, x, g)
            return reweighted(layer, gradients, *(None if gamma is None else gamma[0] for gamma in gammas))
        x, g = (
            values if gamma is None else scaled(values, gamma) for values, gamma in zip((x, g), gammas, strict=True)
        )
        return self.network.weight_gradients(layer, weights, x, g)


def cross_entropy(logits: Tensor, one_hot: Tensor) -> Tensor:
    """Per-sample loss (N,) of logits (N, ways) for one-hot labels (N, ways)."""
    return -(torch.log_softmax(logits, dim=-1) * one_hot).sum(-1)
