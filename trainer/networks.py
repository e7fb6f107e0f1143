"""A network in PyTorch.

There is one description of a network, the graph that is exported (`pmeta.codegen.networks` has the paper's).
`Network` interprets it with weights given as a dict of tensors, so the same code serves the meta-trained weights, the
adapted ones, and any vmap over tasks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from pmeta.codegen.graph import Graph, Node
from pmeta.codegen.plan.segments import relu_after_pool
from pmeta.trainer.attention import scaled
from pmeta.trainer.network_variants import with_micro_batches
from pmeta.trainer.operators import Applied, Gamma, Tensors, apply, apply_sparse, weight_gradients


def weight_tensors(graph: Graph, device: torch.device | str = "cpu") -> Tensors:
    """The graph's weights as float32 tensors on `device`, by name."""
    return {name: torch.from_numpy(np.array(array)).to(device) for name, array in graph.weights.items()}


def convolution_for(device: torch.device, choice: str = "auto") -> str:
    """Key of CONVOLUTIONS: `choice`, or for auto what suits the device."""
    if choice != "auto":
        return choice
    return "matmul" if device.type == "cuda" else "direct"


@dataclass(frozen=True)
class Network:
    """A graph as PyTorch functions of its weights."""

    graph: Graph
    convolution: str = "direct"  # key of CONVOLUTIONS

    def __post_init__(self) -> None:
        _ = self.nodes, self._read_last_by  # now: torch.compile cannot trace the lock inside a cached_property

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The graph's, but max-pools come before the ReLU whose output they alone read.

        That changes neither a value nor a gradient, and leaves the ReLU a quarter of the elements.
        """
        return relu_after_pool(self.graph).nodes

    def forward(self, weights: Mapping[str, Tensor], x: Tensor | Mapping[str, Tensor], first: int = 0) -> Tensor:
        """The output (N, ...) of the graph for a batch.

        x: the samples (N, ...), or what `below` gives for node number `first`, to run the rest.
        """
        activations = dict(x) if isinstance(x, Mapping) else self._samples(x)
        for position in range(first, len(self.nodes)):
            self._run(position, weights, activations)
        return activations[self.graph.output]

    def below(self, weights: Mapping[str, Tensor], x: Tensor, first: int) -> Tensors:
        """What nodes before number `first` compute for those from there on, by activation. x: the samples (N, ...)."""
        activations = self._samples(x)
        for position in range(first):
            self._run(position, weights, activations)
        return activations

    def in_micro_batches(self, samples: int | None) -> Network:
        """For batches that consist of micro-batches of so many samples, which only batch normalization can tell."""
        graph = with_micro_batches(self.graph, samples)
        return self if graph is self.graph else replace(self, graph=graph)

    def recorded(
        self, weights: Mapping[str, Tensor], features: Mapping[str, Tensor], first: int, gamma: Gamma | None = None
    ) -> Recording:
        """`forward` that keeps what the way back needs. features: what `below` gives for `first`.

        gamma: γ^fw where it weighs the maps themselves (`apply_sparse`).
        """
        activations, record = dict(features), []
        for position in range(first, len(self.nodes)):
            record.append(self._run(position, weights, activations, gamma))
        return Recording(self, first, tuple(record))

    def weight_gradients(self, node: Node, weights: Mapping[str, Tensor], x: Tensor, g: Tensor) -> Tensors:
        """Gradients of a layer's weights, by name, summed over the batch.

        x: what its weights are applied to (`Applied.weighed`), g: g(y_l), both (N, ...).
        """
        return weight_gradients(node, weights, x, g, self.convolution)

    def _samples(self, x: Tensor) -> Tensors:
        """Samples in the graph's shape: (C, L) becomes (C, 1, L)."""
        return {self.graph.input: x.reshape(x.shape[0], *self.graph.input_shape)}

    def _run(
        self,
        position: int,
        weights: Mapping[str, Tensor],
        activations: dict[str, Tensor],
        gamma: Gamma | None = None,
    ) -> Applied:
        """`apply` node number `position`, note its output; drops the activations that no later node reads."""
        node = self.nodes[position]
        operator = apply if gamma is None else partial(apply_sparse, gamma=gamma)
        applied = operator(node, weights, [activations[name] for name in node.inputs], self.convolution)
        for name in self._read_last_by[position]:
            del activations[name]
        activations[node.output] = applied.output
        return applied

    @cached_property
    def _read_last_by(self) -> tuple[tuple[str, ...], ...]:
        """By node: the activations that it is the last to read."""
        last = {name: position for position, node in enumerate(self.nodes) for name in node.inputs}
        return tuple(
            tuple(name for name in dict.fromkeys(node.inputs) if last[name] == position)
            for position, node in enumerate(self.nodes)
        )


@dataclass(frozen=True)
class Recording:
    """A pass through the nodes of a network from number `first` on, and the way back."""

    network: Network
    first: int
    applied: tuple[Applied, ...]  # by node

    @property
    def output(self) -> Tensor:
        """(N, ...)."""
        return self.applied[-1].output

    def gradients(
        self, g: Tensor, layers: Collection[str], gamma: Gamma | None = None
    ) -> dict[str, tuple[Applied, Tensor]]:
        """For every one of `layers`, by name: what it computed, and g(y_l). g: gradient of the output.

        gamma: γ^bw where it weighs g(y_l) itself, so that everything below follows from the sparse gradient (Table 7).
        Ordinary differentiable code: outer derivatives pass through it as through the forward pass.
        """
        nodes = self.network.nodes[self.first :]
        leads_down = self._outputs_above(layers)
        producers = {node.output: applied for node, applied in zip(nodes, self.applied, strict=True)}
        by_activation = {nodes[-1].output: g}
        found: dict[str, tuple[Applied, Tensor]] = {}
        for node, applied in zip(reversed(nodes), reversed(self.applied), strict=True):
            gradient = by_activation.pop(node.output, None)
            if gradient is None:
                continue
            if node.name in layers:
                weight = None if gamma is None else gamma(node.name, gradient)
                gradient = gradient if weight is None else scaled(gradient, weight)
                found[node.name] = applied, gradient
            if leads_down.isdisjoint(node.inputs):
                continue
            scattered = applied.scattered_gradient(gradient)
            parts = applied.input_gradients(gradient) if scattered is None else [scattered.dense]
            for name, part in zip(node.inputs, parts, strict=True):
                if name in leads_down:
                    by_activation[name] = by_activation[name] + part if name in by_activation else part
            if scattered is not None and (below := producers.get(node.inputs[0])) is not None:
                below.expect(scattered)
        return found

    def _outputs_above(self, layers: Collection[str]) -> set[str]:
        """Activations that depend on the weights of `layers`."""
        found: set[str] = set()
        for node in self.network.nodes[self.first :]:
            if node.name in layers or not found.isdisjoint(node.inputs):
                found.add(node.output)
        return found
