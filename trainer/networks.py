"""A network in PyTorch.

There is one description of a network, the graph that is exported (`pmeta.codegen.networks` has the paper's).
`Network` interprets it with weights given as a dict of tensors, so the same code serves the meta-trained weights, the
adapted ones, and any vmap over tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmeta.codegen.errors import UnsupportedError
from pmeta.codegen.graph import Graph, Node
from pmeta.codegen.operators import Conv, Flatten, Gemm, GroupNorm, MaxPool, Relu, Window
from pmeta.trainer.convolution import CONVOLUTIONS

Tensors = dict[str, Tensor]


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
        x: Tensor,
        probes: Mapping[str, Tensor] | None = None,
        nodes: slice = slice(None),
    ) -> tuple[Tensor, Tensors]:
        """Run the graph, or only some of its nodes, on a batch.

        x: (N, *shape that the first node reads). probes: zeros of y_l's shape, by layer name, added to the layer's
        output y_l; the loss's gradient with respect to them is g(y_l). Returns the output (N, ...) and, for every
        layer, what its weight gradient needs: its input x_{l-1}, for a GroupNorm the normalized input x̂.
        """
        layer_inputs: Tensors = {}
        for node in self.graph.nodes[nodes]:
            x, weighed = self._apply(node, weights, x)
            if weighed is not None:
                layer_inputs[node.name] = weighed
            if probes is not None and node.name in probes:
                x = x + probes[node.name]
        return x, layer_inputs

    def _apply(self, node: Node, weights: Mapping[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor | None]:
        """One operator's output, and what its weights are applied to; None for an operator without weights."""
        match node:
            case Conv(groups=1):
                convolve = CONVOLUTIONS[self.convolution].forward
                y = convolve(_padded(x, node.window), weights[node.weight], node.window)
                return y if node.bias is None else y + weights[node.bias][:, None, None], x
            case GroupNorm():
                normalized = _normalized(x, node)
                return normalized * weights[node.scale][:, None, None] + weights[node.shift][:, None, None], normalized
            case Gemm():
                y = x @ weights[node.weight].T
                return y if node.bias is None else y + weights[node.bias], x
            case Relu():
                return F.relu(x), None
            case MaxPool():
                window = node.window
                x = _padded(x, window, float("-inf"))
                return F.max_pool2d(x, window.kernel, window.stride, dilation=window.dilation), None
            case Flatten():
                return x.flatten(1), None
        raise UnsupportedError(f"cannot train a {type(node).__name__}", f"node '{node.name}'", "use another operator")

    def weight_gradients(self, node: Node, x: Tensor, g: Tensor) -> Tensors:
        """Gradients of a layer's weights, by name, summed over the batch.

        x: what `forward` returned for the layer, g: g(y_l), both (N, ...). The layer is linear in both, so scaling
        channels of x by γ^fw and of g by γ^bw scales the gradients as Eqs. 12 and 13 ask, bias and shift by γ^bw
        alone.
        """
        match node:
            case Conv():
                weight_gradient = CONVOLUTIONS[self.convolution].weight_gradient
                dw = weight_gradient(_padded(x, node.window), g, node.window)
                return {node.weight: dw} | ({} if node.bias is None else {node.bias: g.sum((0, 2, 3))})
            case GroupNorm():
                return {node.scale: (g * x).sum((0, 2, 3)), node.shift: g.sum((0, 2, 3))}
            case Gemm():
                return {node.weight: g.T @ x} | ({} if node.bias is None else {node.bias: g.sum(0)})
        raise UnsupportedError("has no weights to learn", f"node '{node.name}'", "choose a layer")


def _padded(x: Tensor, window: Window, value: float = 0.0) -> Tensor:
    (top, left), (bottom, right) = window.pad_before, window.pad_after
    return F.pad(x, (left, right, top, bottom), value=value) if any((top, left, bottom, right)) else x


def _normalized(x: Tensor, node: GroupNorm) -> Tensor:
    """x̂ = (x − mean)/sqrt(variance + ε) per sample and group of channels; (N, C, H, W) in and out."""
    grouped = x.reshape(x.shape[0], node.groups, -1)
    centred = grouped - grouped.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return (centred * torch.rsqrt(variance + node.epsilon)).reshape(x.shape)
