"""What adaptation needs beside the graph: step sizes, meta attention, input encoding, and the record of training.

Together with a `Graph` this is a `Model`, the content of one model.onnx (see `pmeta.codegen.modelfile`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from pmeta.codegen.errors import ModelError
from pmeta.codegen.graph import Float32Array, Graph, Node
from pmeta.codegen.storage import Storage

UpdatedPart = Literal["weight", "bias"]  # of a GroupNormalization: its scale, its shift
LossHead = Literal["softmax_cross_entropy", "mean_squared_error"]  # classes; numbers
PARTS: tuple[UpdatedPart, ...] = ("weight", "bias")  # in the order of Node.weight_names
SCHEMA_VERSION = 1
MAX_STEPS = 64  # K; the paper's is 5


@dataclass(frozen=True)
class InputEncoding:
    """How a sample travels and is stored: as float32, or as uint8 with x = u·scale[c] + offset[c]."""

    kind: Literal["float32", "uint8"]
    scale: tuple[float, ...] = ()  # float32 values, one per input channel; empty for float32
    offset: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("float32", "uint8"):
            raise ModelError(f"unknown input encoding '{self.kind}'", "record", "use float32 or uint8")
        if len(self.scale) != len(self.offset) or bool(self.scale) != (self.kind == "uint8"):
            raise ModelError("uint8 needs one scale and one offset per channel, float32 none", "record", "correct it")

    @property
    def bytes_per_element(self) -> int:
        return 1 if self.kind == "uint8" else 4


@dataclass(frozen=True)
class AttentionModule:
    """Parameters of h (Fig. 3 of the paper): C → C → C, both with bias; float32."""

    w1: Float32Array  # (C, C)
    b1: Float32Array  # (C,)
    w2: Float32Array  # (C, C)
    b2: Float32Array  # (C,)

    @property
    def channels(self) -> int:
        return int(self.b1.shape[0])

    def __post_init__(self) -> None:
        channels = self.b1.shape[0] if self.b1.ndim else 0
        shapes = (self.w1.shape, self.b1.shape, self.w2.shape, self.b2.shape)
        if shapes != ((channels, channels), (channels,), (channels, channels), (channels,)):
            raise ModelError(f"attention shapes {shapes} do not belong together", "attention", "export again")


@dataclass(frozen=True)
class LayerAttention:
    """The attention modules of one layer; None where a direction has none (γ = 1)."""

    fw: AttentionModule | None
    bw: AttentionModule | None


@dataclass(frozen=True)
class Adaptation:
    """How the device adapts: everything of `design` "Adaptation, exactly" that is data.

    alpha[l, k] is the step size of layer l (topological order) in step k; where it is zero, nothing is computed.
    """

    method: str  # maml, maml++, p-meta-3.2, ...; for people only, the data below decides
    ways: int  # numbers that the network gives: classes; with mean squared error outputs, the numbers of a target
    shots: int  # what it was trained for; the device takes any number of samples
    alpha: Float32Array  # (L, K), all >= 0
    updates: tuple[tuple[UpdatedPart, ...], ...]  # per layer, which of its weights learn at all
    rho_fw: int  # clip ratio ρ of forward attention, in thousandths
    rho_bw: int
    encoding: InputEncoding
    attention: Mapping[str, LayerAttention] = field(default_factory=dict)  # by layer name
    alpha_in: Mapping[str, Float32Array] = field(default_factory=dict)  # α^Ch per input channel, by layer name
    alpha_out: Mapping[str, Float32Array] = field(default_factory=dict)  # α^Ch per output channel
    loss: LossHead = "softmax_cross_entropy"
    sample_batch: int = 1  # samples per micro-batch on the device
    storage: Storage = field(default_factory=Storage)  # of maps and of what the backward pass reads
    class_names: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)  # data, seed, config, versions: JSON values

    def __post_init__(self) -> None:
        for name in ("attention", "alpha_in", "alpha_out", "training"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        problem = self._problem()
        if problem:
            raise ModelError(problem, "adaptation record", "export the model again")

    def _problem(self) -> str | None:
        alpha = self.alpha
        if alpha.dtype != np.float32 or alpha.ndim != 2 or alpha.shape[1] < 1:
            return f"step sizes must be float32 of shape (L, K), got {alpha.dtype} {alpha.shape}"
        if not np.all(np.isfinite(alpha)) or np.any(alpha < 0):
            return "step sizes must be finite and >= 0"
        if self.steps > MAX_STEPS:
            return f"has {self.steps} steps, at most {MAX_STEPS} are possible"
        if len(self.updates) != alpha.shape[0]:
            return f"{alpha.shape[0]} rows of step sizes, but {len(self.updates)} layers"
        if any(part not in ("weight", "bias") for parts in self.updates for part in parts):
            return "a layer may update 'weight' and 'bias' only"
        if any(len(set(parts)) < len(parts) for parts in self.updates):
            return "a layer updates the same part twice"
        if not (0 <= self.rho_fw <= 999 and 0 <= self.rho_bw <= 999):
            return "clip ratios must lie in 0..999 thousandths"
        if self.loss not in get_args(LossHead):
            return f"unknown loss head '{self.loss}'"
        if min(self.ways, self.shots, self.sample_batch) < 1:
            return "ways, shots and sample batch size must be at least 1"
        return None

    @property
    def steps(self) -> int:
        """K."""
        return int(self.alpha.shape[1])

    @property
    def regression(self) -> bool:
        """Whether samples teach numbers instead of classes."""
        return self.loss == "mean_squared_error"


@dataclass(frozen=True)
class LearnedWeight:
    """A weight that changes in some step."""

    name: str  # as in model.onnx
    layer: str
    part: UpdatedPart
    step_sizes: tuple[float, ...]  # α_l^k for k = 1..K, float32 values; 0 where the weight does not change

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps, 1..K, at whose end it changes."""
        return tuple(k for k, step_size in enumerate(self.step_sizes, start=1) if step_size != 0)


@dataclass(frozen=True)
class Model:
    """A graph and how to adapt it: the content of one model.onnx."""

    graph: Graph
    adaptation: Adaptation

    def __post_init__(self) -> None:
        graph, adaptation = self.graph, self.adaptation
        where = f"model '{graph.name}'"
        layers = graph.layers
        if adaptation.alpha.shape[0] != len(layers):
            raise ModelError(
                f"{adaptation.alpha.shape[0]} rows of step sizes for {len(layers)} layers", where, "export again"
            )
        if graph.output_shape != (adaptation.ways,):
            raise ModelError(
                f"the output has shape {graph.output_shape}, but the record says {adaptation.ways} ways",
                where,
                "export again",
            )
        if adaptation.encoding.kind == "uint8" and len(adaptation.encoding.scale) != graph.input_shape[0]:
            raise ModelError("the input encoding has another number of channels", where, "export again")
        if not all(isfinite(value) for value in (*adaptation.encoding.scale, *adaptation.encoding.offset)):
            raise ModelError("scale and offset of the input must be finite float32 numbers", where, "export again")
        self._check_attention(layers, where)
        self._check_channel_step_sizes(layers, where)

    def _check_attention(self, layers: tuple[Node, ...], where: str) -> None:
        by_name = {layer.name: layer for layer in layers}
        for name, attention in self.adaptation.attention.items():
            layer = by_name.get(name)
            if layer is None or layer is layers[-1]:
                raise ModelError(f"attention on '{name}', which is no layer or the last one", where, "export again")
            channels = layer.attention_channels(self.graph.shapes[layer.input])
            for module, expected in zip((attention.fw, attention.bw), channels, strict=True):
                if module is not None and module.channels != expected:
                    raise ModelError(
                        f"attention of '{name}' has {module.channels} channels, expected {expected}",
                        where,
                        "export again",
                    )

    def _check_channel_step_sizes(self, layers: tuple[Node, ...], where: str) -> None:
        by_name = {layer.name: layer for layer in layers}
        for side, tables in enumerate((self.adaptation.alpha_in, self.adaptation.alpha_out)):
            for name, table in tables.items():
                layer = by_name.get(name)
                expected = 0 if layer is None else layer.attention_channels(self.graph.shapes[layer.input])[side]
                if table.dtype != np.float32 or table.shape != (expected,) or not np.all(np.isfinite(table)):
                    what = f"step sizes per channel of '{name}' must be {expected} finite float32"
                    raise ModelError(what, where, "export again")
                if np.any(table < 0):
                    raise ModelError(f"step sizes per channel of '{name}' must be >= 0", where, "export again")

    @cached_property
    def learned_weights(self) -> tuple[LearnedWeight, ...]:
        """The weights that change in some step: in layer order, a layer's weight before its bias.

        Their order is that of the tensors everywhere: on the device, in the manifest, on the link.
        """
        return tuple(
            LearnedWeight(name, layer.name, part, tuple(float(step_size) for step_size in row))
            for layer, row, parts in zip(self.graph.layers, self.adaptation.alpha, self.adaptation.updates, strict=True)
            for name, part in zip(layer.weight_names, PARTS, strict=False)
            if part in parts and row.any()
        )

    def learned_in_step(self, step: int) -> tuple[LearnedWeight, ...]:
        """The weights that change at the end of `step` (1..K), in the order of `learned_weights`."""
        return tuple(weight for weight in self.learned_weights if weight.step_sizes[step - 1] != 0)

    def learns(self, layer: int, part: UpdatedPart, step: int) -> bool:
        """Whether `part` of layer number `layer` changes at the end of step `step` (1..K)."""
        return bool(self.adaptation.alpha[layer, step - 1] != 0) and part in self.adaptation.updates[layer]
