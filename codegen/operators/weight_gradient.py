"""What the layers share: storing their input under forward attention, and weighing gradients by backward attention."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pmeta.codegen.graph import Shape
from pmeta.codegen.plan.program import Buffer, Role, Stage, StoredInput, whole
from pmeta.codegen.plan.stored import keep, new_rows, row_scratch, row_type
from pmeta.codegen.storage import row_elements

if TYPE_CHECKING:
    from pmeta.codegen.plan.lowering import Lowering


def kept_channels_bound(channels: int, rho: int) -> int:
    """Most channels that Algorithm 1 can keep, whatever the input; ρ in thousandths (docs/numerics.md)."""
    if rho == 0 or channels == 1:
        return channels
    return max(1, channels - -(-rho * channels // 1000))


def attention_scores(low: Lowering, direction: str, v: Buffer) -> Buffer | None:
    """γ of the current layer; None where it has no module for this direction.

    Of one sample it follows from its own `v` (C, ...); in a micro-batch it was computed before.
    """
    module = low.attention(direction)
    if module is None:
        return None
    if low.stage is Stage.GRADIENT:
        return low.batch_buffer(f"gamma_{direction}", (module.channels,), external=False)
    total = low.buffer(f"attention_{direction}_sum", (module.channels,), Role.SCRATCH)
    gamma = low.buffer(f"gamma_{direction}", (module.channels,), Role.STORE)
    _attention_output(low, direction, v, total, "1")
    lower_scores(low, direction, "1", total, gamma)
    return gamma


def attend(low: Lowering, direction: str, v: Buffer) -> None:
    """Add what attention says of this sample's `v` (C, ...) to the micro-batch's sum; in a loop slice by slice."""
    module = low.attention(direction)
    if module is None:
        raise AssertionError("there is no attention")
    total = low.batch_buffer(f"attention_{direction}_sum", (module.channels,), external=True)
    _attention_output(low, direction, v, total, "first")


def _attention_output(low: Lowering, direction: str, v: Buffer, total: Buffer, first: str) -> None:
    """The module's output for `v`, added to `total`; in a loop, means slice by slice and the output behind it."""
    channels, *size = low.input_shape if direction == "fw" else low.output_shape
    pixels = prod(size)
    row = row_scratch(low, f"attention_{direction}_row", pixels, v)
    means = low.part_of_slices(low.buffer(f"attention_{direction}_means", (channels,), Role.SCRATCH))
    low.call("pmeta_channel_means", channels, pixels, row_type(v), v, row, means, writes=[row, means])
    all_channels = channels * low.slices
    constant = low.attention_constant(direction)

    def emit_output() -> None:
        hidden = low.buffer(f"attention_{direction}_hidden", (2, all_channels), Role.SCRATCH)
        low.call("pmeta_attention_output", constant, first, whole(means), hidden, total, writes=[hidden, total])

    low.after_loop(emit_output)


def lower_scores(low: Lowering, direction: str, count: str, total: Buffer, gamma: Buffer) -> None:
    """γ of the current layer from the sum over a micro-batch."""
    order = low.buffer(f"attention_{direction}_order", gamma.shape, Role.SCRATCH, "uint16_t")
    constant = low.attention_constant(direction)
    low.call("pmeta_attention_scores", constant, count, total, order, gamma, writes=[order, gamma])


def prepare_weight_gradient(low: Lowering, x: Buffer) -> None:
    """Before the forward pass of a Conv or Gemm: store or look at its input, as the stage asks."""
    if low.attends("fw"):
        attend(low, "fw", x)
    if low.learns("weight"):
        low.note("stored", store_input(low, x, low.input_shape, weigh=True))


def store_input(low: Lowering, x: Buffer, shape: Shape, weigh: bool) -> StoredInput:
    """Store what the weight gradient needs of `x` (C, ...): with forward attention only its kept rows.

    weigh: multiply the kept rows by γ^fw (conv, fc).
    """
    gamma = attention_scores(low, "fw", x)
    if gamma is None:
        return StoredInput(keep(low, "kept", x, shape)[1], shape, None, None)
    bound = kept_channels_bound(shape[0], low.rho("fw"))
    kept = low.buffer("kept", (1 + bound,), Role.STORE, "uint16_t")
    low.call("pmeta_kept_channels", shape[0], gamma, kept, writes=[kept])
    store = new_rows(low, "stored", low.storage.kept_as(shape), (bound, *shape[1:]))
    factor = gamma if weigh else None
    if len(shape) > 1:
        size = row_elements(shape)
        row = row_scratch(low, "stored_row", size, x, store)
        read = (size, kept, row_type(x), x)
        low.call("pmeta_keep_rows", *read, factor, row, row_type(store), store, writes=[row, store])
    else:
        row = low.buffer("stored_row", (bound,), Role.SCRATCH)
        low.call("pmeta_keep_elements", kept, row_type(x), x, factor, row, row_type(store), store, writes=[row, store])
    return StoredInput(store, (bound, *shape[1:]), kept, None if weigh else gamma)


def gamma_bw(low: Lowering) -> Buffer | None:
    """γ^bw of the current layer, as the walk has noted it; in a loop the current slice's."""
    gamma = low.noted("gamma_bw")
    return None if gamma is None else low.part(gamma)


def bias_gradient(low: Lowering, weight: str, g: Buffer) -> None:
    """Accumulate the gradient of a per-channel bias or shift."""
    grad = low.accumulator(weight)
    channels, size = low.output_shape[0], prod(low.output_shape[1:])
    low.call("pmeta_bias_gradient", channels, size, g, gamma_bw(low), grad, writes=[grad])
