"""What the layers share: storing their input under forward attention, and weighing gradients by backward attention."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pmeta.codegen.plan.program import Buffer, Role, StoredInput

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


def kept_channels_bound(channels: int, rho: int) -> int:
    """Most channels that Algorithm 1 can keep, whatever the input; ρ in thousandths (docs/numerics.md)."""
    if rho == 0 or channels == 1:
        return channels
    return max(1, channels - -(-rho * channels // 1000))


def attention_scores(low: Lowering, direction: str, v: Buffer) -> Buffer | None:
    """γ of the current layer from `v` (C, ...); None where it has no module for this direction."""
    module = low.attention(direction)
    if module is None:
        return None
    channels = module.channels
    gamma = low.buffer(f"gamma_{direction}", (channels,), Role.STORE)
    scratch = low.buffer(f"attention_{direction}_scratch", (2, channels), Role.SCRATCH)
    order = low.buffer(f"attention_{direction}_order", (channels,), Role.SCRATCH, "uint16_t")
    constant = low.attention_constant(direction)
    low.call("pmeta_attention", constant, v, scratch, order, gamma, writes=[scratch, order, gamma])
    return gamma


def store_input(low: Lowering, x: Buffer, weigh: bool, keep_dense: bool) -> StoredInput:
    """Store what the weight gradient needs of `x` (C, ...): with forward attention only its kept rows.

    weigh: multiply the kept rows by γ^fw (conv, fc). keep_dense: `x` stays whole anyway, only γ^fw is added.
    """
    gamma = attention_scores(low, "fw", x)
    if gamma is None or keep_dense:
        return StoredInput(low.hold(x), None, gamma)
    channels, size = low.input_shape[0], prod(low.input_shape[1:])
    bound = kept_channels_bound(channels, low.rho("fw"))
    kept = low.buffer("kept", (1 + bound,), Role.STORE, "uint16_t")
    store = low.buffer("stored", (bound, *low.input_shape[1:]), Role.STORE)
    low.call("pmeta_kept_channels", channels, gamma, kept, writes=[kept])
    low.call("pmeta_keep_rows", size, kept, x, gamma if weigh else None, store, writes=[store])
    return StoredInput(store, kept, None if weigh else gamma)


def gamma_bw(low: Lowering) -> Buffer | None:
    """γ^bw of the current layer, as the walk has noted it; in a loop the current slice's."""
    gamma = low.noted("gamma_bw")
    return None if gamma is None else low.part(gamma)


def weight_gradient(low: Lowering, kernel: str, weight: str, g: Buffer) -> None:
    """Accumulate the gradient of the weight of a convolution or fully connected layer."""
    stored, grad = low.noted("stored"), low.accumulator(weight)
    low.call(kernel, low.shape_constant(), stored.kept, stored.x, g, gamma_bw(low), grad, writes=[grad])


def bias_gradient(low: Lowering, weight: str, g: Buffer) -> None:
    """Accumulate the gradient of a per-channel bias or shift."""
    grad = low.accumulator(weight)
    channels, size = low.output_shape[0], prod(low.output_shape[1:])
    low.call("pmeta_bias_gradient", channels, size, g, gamma_bw(low), grad, writes=[grad])
