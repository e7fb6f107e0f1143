"""Replaying a fixed computation as a CUDA graph: thousands of kernel launches become one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

WARM_UP_RUNS = 3


class Captured:
    """Calls `function`; on a CUDA GPU captures it once per structure of its inputs, then replays the capture.

    `function` takes one pytree of tensors of fixed shapes, does not synchronize, and may write to tensors that live
    outside; `changed` are those whose new values depend on the old, which runs before the capture must not alter. Its
    results are overwritten by the next call.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        device: torch.device,
        enabled: bool = True,
        changed: Sequence[Tensor] = (),
    ) -> None:
        self._function = function
        self._changed = changed
        self._enabled = enabled and device.type == "cuda"
        self._captures: dict[Any, tuple[torch.cuda.CUDAGraph, list[Tensor], Any]] = {}

    def __call__(self, inputs: Any) -> Any:
        if not self._enabled:
            return self._function(inputs)
        leaves, structure = tree_flatten(inputs)
        key = (str(structure), *(leaf.shape for leaf in leaves))
        if key not in self._captures:
            self._captures[key] = self._capture(inputs)
        graph, buffers, outputs = self._captures[key]
        for buffer, leaf in zip(buffers, leaves, strict=True):
            buffer.copy_(leaf)
        graph.replay()
        return outputs

    def _capture(self, inputs: Any) -> tuple[torch.cuda.CUDAGraph, list[Tensor], Any]:
        static = tree_map(torch.clone, inputs)
        before = [tensor.clone() for tensor in self._changed]
        # Libraries set themselves up (workspaces, algorithm choice) on first use, which a capture must not see.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                self._function(static)
        torch.cuda.current_stream().wait_stream(stream)
        for tensor, value in zip(self._changed, before, strict=True):
            tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._function(static)
        return graph, tree_flatten(static)[0], outputs
