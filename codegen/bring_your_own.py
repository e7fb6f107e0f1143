"""Networks that were not meta-trained: what learns, how fast and for how long comes from the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import get_args

import numpy as np

from pmeta.codegen.adaptation import Adaptation, InputEncoding, LossHead, Model, UpdatedPart
from pmeta.codegen.errors import ConfigError, UnsupportedError
from pmeta.codegen.graph import Graph, Node, frozen_float32
from pmeta.codegen.operators import Gemm

MAX_WAYS = 1000


@dataclass(frozen=True)
class OwnAdaptation:
    """How to adapt a network without an adaptation record. All layers that learn do so in every step."""

    update: str  # last, all, bias, or names of layers with commas between
    alpha: float = 0.01  # step size
    steps: int = 5  # K
    loss: LossHead = "softmax_cross_entropy"
    new_head_ways: int | None = (
        None  # replace the last layer by an empty one for so many classes or outputs, or keep it
    )
    uint8_scale: float | None = None  # samples travel as bytes u that mean u·scale + offset; None: as float32
    uint8_offset: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.alpha < float("inf") and np.float32(self.alpha) > 0):
            raise ConfigError(f"a step size of {self.alpha}", "--alpha", "use a positive number such as 0.01")
        if self.steps < 1:
            raise ConfigError(f"{self.steps} steps", "--steps", "use at least 1")
        if self.loss not in get_args(LossHead):
            raise ConfigError(f"no loss is called '{self.loss}'", "--loss", f"use {' or '.join(get_args(LossHead))}")
        fewest, option, counted = (1, "--outputs", "outputs") if self.regression else (2, "--ways", "classes")
        if self.new_head_ways is not None and not fewest <= self.new_head_ways <= MAX_WAYS:
            raise ConfigError(f"{self.new_head_ways} {counted}", option, f"use {fewest} to {MAX_WAYS}")

    @property
    def regression(self) -> bool:
        """Whether samples teach numbers instead of classes."""
        return self.loss == "mean_squared_error"

    @property
    def arguments(self) -> tuple[str, ...]:
        """The options that give this, for the canonical command."""
        found = [f"--update {self.update}", f"--alpha {self.alpha:g}", f"--steps {self.steps}"]
        if self.regression:
            found.append(f"--loss {self.loss}")
        if self.new_head_ways is not None:
            found += ["--head new", f"--{'outputs' if self.regression else 'ways'} {self.new_head_ways}"]
        if self.uint8_scale is not None:
            found += [f"--uint8-scale {self.uint8_scale:g}", f"--uint8-offset {self.uint8_offset:g}"]
        return tuple(found)


def own_model(graph: Graph, options: OwnAdaptation) -> Model:
    """The network with a record made from the options; raises ConfigError or UnsupportedError."""
    if options.new_head_ways is not None:
        graph = with_new_head(graph, options.new_head_ways)
    if len(graph.output_shape) != 1:
        what = f"the output has shape {graph.output_shape}, a vector is needed"
        raise UnsupportedError(what, f"model '{graph.name}'", "end the network with a fully connected layer")
    if graph.output_shape == (1,) and not options.regression:
        what = "has one output, and with one class there is nothing to learn"
        raise UnsupportedError(what, f"model '{graph.name}'", "pass --loss mean_squared_error, or --head new --ways N")
    updates = _updates(graph, options.update)
    alpha = np.zeros((len(updates), options.steps), np.float32)
    alpha[[bool(parts) for parts in updates]] = options.alpha
    adaptation = Adaptation(
        method="bring-your-own",
        ways=graph.output_shape[0],
        shots=1,
        alpha=frozen_float32(alpha),
        updates=updates,
        rho_fw=0,
        rho_bw=0,
        encoding=_encoding(graph, options),
        loss=options.loss,
    )
    return Model(graph, adaptation)


def _updates(graph: Graph, choice: str) -> tuple[tuple[UpdatedPart, ...], ...]:
    """Per layer what learns."""
    layers = graph.layers
    if not layers:
        raise UnsupportedError("has no layer with weights", f"model '{graph.name}'", "use a network with layers")
    parts: dict[str, tuple[UpdatedPart, ...]] = {layer.name: _parts(layer) for layer in layers}
    match choice:
        case "all":
            return tuple(parts.values())
        case "last":
            return tuple(parts[layer.name] if layer is layers[-1] else () for layer in layers)
        case "bias":
            biases = tuple(tuple(part for part in own if part == "bias") for own in parts.values())
            if not any(biases):
                raise ConfigError("no layer has a bias", "--update bias", "name the layers that learn")
            return biases
    chosen = [name.strip() for name in choice.split(",")]
    unknown = [name for name in chosen if name not in parts]
    if unknown:
        known = ", ".join(parts)
        raise ConfigError(f"no layer is called {unknown[0]!r}", "--update", f"last, all, bias, or some of: {known}")
    return tuple(own if name in chosen else () for name, own in parts.items())


def _parts(layer: Node) -> tuple[UpdatedPart, ...]:
    return ("weight", "bias") if len(layer.weight_names) > 1 else ("weight",)


def with_new_head(graph: Graph, ways: int) -> Graph:
    """The last layer with all weights zero, for other classes or outputs: nothing to unlearn, no draw to repeat."""
    last = graph.nodes[-1]
    if not isinstance(last, Gemm):
        what = "the network does not end with a fully connected layer, so it cannot be replaced"
        raise UnsupportedError(what, f"model '{graph.name}'", "keep its head, or end it with such a layer")
    features = prod(graph.shapes[last.input])
    bias = last.bias or f"{last.weight}.bias"
    head = replace(last, bias=bias, features=ways)
    weights = {**graph.weights, last.weight: frozen_float32(np.zeros((ways, features)))}
    weights[bias] = frozen_float32(np.zeros(ways))
    return Graph(graph.name, graph.input, graph.input_shape, (*graph.nodes[:-1], head), weights)


def _encoding(graph: Graph, options: OwnAdaptation) -> InputEncoding:
    if options.uint8_scale is None:
        return InputEncoding("float32")
    channels = graph.input_shape[0]
    scale, offset = (float(np.float32(value)) for value in (options.uint8_scale, options.uint8_offset))
    return InputEncoding("uint8", (scale,) * channels, (offset,) * channels)
