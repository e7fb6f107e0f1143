"""A network in PyTorch.

There is one description of a network, the graph that is exported (`pmeta.codegen.networks` has the paper's).
`Network` interprets it with weights given as a dict of tensors, so the same code serves the meta-trained weights, the
adapted ones, and any vmap over tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pmeta.codegen.graph import Graph, Node
from pmeta.trainer.operators import Tensors, apply, weight_gradients


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

    def forward(
        self,
        weights: Mapping[str, Tensor],
        x: Tensor | Mapping[str, Tensor],
        probes: Mapping[str, Tensor] | None = None,
        first: int = 0,
    ) -> tuple[Tensor, Tensors]:
        """Run the graph, or only its nodes from number `first` on, on a batch.

        x: the samples (N, ...), or what `below` gives for `first`. probes: zeros of y_l's shape, by layer
        name, added to the layer's output y_l; the loss's gradient with respect to them is g(y_l). Returns the output
        (N, ...) and, for every layer that has a probe, what its weight gradient needs: its input x_{l-1}, for a
        GroupNorm the normalized input x̂.
        """
        activations = dict(x) if isinstance(x, Mapping) else self._samples(x)
        layer_inputs: Tensors = {}
        for position in range(first, len(self.graph.nodes)):
            node = self.graph.nodes[position]
            y, weighed = self._run(position, weights, activations)
            if probes is not None and node.name in probes:
                layer_inputs[node.name] = weighed
                y = y + probes[node.name]
            activations[node.output] = y
        return activations[self.graph.output], layer_inputs

    def below(self, weights: Mapping[str, Tensor], x: Tensor, first: int) -> Tensors:
        """What nodes before number `first` compute for those from there on, by activation. x: the samples (N, ...)."""
        activations = self._samples(x)
        for position in range(first):
            activations[self.graph.nodes[position].output], _ = self._run(position, weights, activations)
        return activations

    def weight_gradients(self, node: Node, x: Tensor, g: Tensor) -> Tensors:
        """Gradients of a layer's weights, by name, summed over the batch.

        x: what `forward` returned for the layer, g: g(y_l), both (N, ...). The layer is linear in both, so scaling
        channels of x by γ^fw and of g by γ^bw scales the gradients as Eqs. 12 and 13 ask, bias and shift by γ^bw
        alone.
        """
        return weight_gradients(node, x, g, self.convolution)

    def _samples(self, x: Tensor) -> Tensors:
        """Samples in the graph's shape: (C, L) becomes (C, 1, L)."""
        return {self.graph.input: x.reshape(x.shape[0], *self.graph.input_shape)}

    def _run(
        self, position: int, weights: Mapping[str, Tensor], activations: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """`apply` node number `position`; drops the activations that no later node reads."""
        node = self.graph.nodes[position]
        result = apply(node, weights, [activations[name] for name in node.inputs], self.convolution)
        for name in self._read_last_by[position]:
            del activations[name]
        return result

    @cached_property
    def _read_last_by(self) -> tuple[tuple[str, ...], ...]:
        """By node: the activations that it is the last to read."""
        last = {name: position for position, node in enumerate(self.graph.nodes) for name in node.inputs}
        return tuple(
            tuple(name for name in dict.fromkeys(node.inputs) if last[name] == position)
            for position, node in enumerate(self.graph.nodes)
        )
