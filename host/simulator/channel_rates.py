"""Step sizes per channel, α^Ch: factors of the accumulated gradients (docs/numerics.md, "Accumulation and update")."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.adaptation import LearnedWeight, Model
from pmeta.codegen.graph import Float32Array
from pmeta.codegen.operators import Conv, GroupNorm


def scaled_by_channel(model: Model, weight: LearnedWeight, total: Float32Array) -> Float32Array:
    """G of one weight with the factors of its layer, where it has some."""
    rates_out = model.adaptation.alpha_out.get(weight.layer)
    rates_in = model.adaptation.alpha_in.get(weight.layer) if weight.part == "weight" else None
    factors = []
    if rates_out is not None:
        factors.append(rates_out.reshape(-1, *[1] * (total.ndim - 1)))
    if rates_in is not None:
        factors.append(_by_input_channel(model, weight, rates_in, total))
    if not factors:
        return total
    factor = factors[0] if len(factors) == 1 else factors[0] * factors[1]
    scaled: Float32Array = total * factor
    return scaled


def _by_input_channel(model: Model, weight: LearnedWeight, rates: Float32Array, total: Float32Array) -> Float32Array:
    """The factor of every weight's input channel, so that it broadcasts over `total`."""
    layer = next(layer for layer in model.graph.layers if layer.name == weight.layer)
    match layer:
        case GroupNorm():
            return rates
        case Conv():
            filters = total.shape[0] // layer.groups  # of each group
            return np.repeat(rates.reshape(layer.groups, -1), filters, axis=0)[:, :, None, None]
    return rates[None, :]
