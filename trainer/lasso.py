"""The price of a step size: what Eq. 9 of the paper multiplies |α_l^k| by, as a share of the sum over layers.

Shares sum to 1, so the penalty λ does not depend on the network's size.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ConfigError, UnsupportedError
from pmeta.codegen.graph import Graph, frozen_float32
from pmeta.codegen.plan.plan import make_plan, prediction_arena_bytes


def activation_shares(graph: Graph) -> Tensor:
    """m(x_{l-1}), the elements of each layer's input (for a GroupNorm: of x̂): (L,), sums to 1."""
    return _shares([prod(graph.shapes[layer.input]) for layer in graph.layers])


def ram_shares(model: Model) -> Tensor:
    """What each layer adds to the device's arena by the planner's account: (L,), sums to 1.

    A layer's cost is the mean of two differences: what it adds where nothing else learns (its plan alone less that of
    predictions), and what it adds where all others learn (the plan of all less that of all others). It learns in every
    step of `model` or in none; "all" are the layers with a step size above zero. Stored inputs and x̂, bits, gradients,
    accumulators and weights in RAM all count, and so does what fits into bytes that are there anyway: it costs nothing.

    Raises ConfigError where the network cannot be planned.
    """
    layers = range(len(model.graph.layers))
    learning = {layer for layer in layers if model.adaptation.alpha[layer].any()}
    try:
        nothing, everything = _arena_bytes(model, ()), _arena_bytes(model, learning)
        costs = [
            (_arena_bytes(model, {layer}) - nothing) + (everything - _arena_bytes(model, learning - {layer}))
            if layer in learning
            else 0
            for layer in layers
        ]
    except UnsupportedError as error:
        what = f"'method.lasso_cost' is 'ram', but {error.what}"
        raise ConfigError(what, error.where, "use 'activations'") from error
    return _shares([max(cost, 0) for cost in costs])


def _arena_bytes(model: Model, learning: Collection[int]) -> int:
    """Of the smallest plan in which these layers, by number, learn in every step."""
    if not learning:
        return prediction_arena_bytes(model)
    alpha = [[float(layer in learning)] * model.adaptation.steps for layer in range(len(model.graph.layers))]
    adaptation = replace(model.adaptation, alpha=frozen_float32(alpha))
    return make_plan(replace(model, adaptation=adaptation)).arena_bytes


def _shares(costs: list[int]) -> Tensor:
    total = sum(costs)
    return torch.tensor([cost / total if total else 1 / len(costs) for cost in costs])
