"""The ways to plan that give the same bits, and differ in memory and in work."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Strategy:
    """One way to plan."""

    slice_channels: int | None  # channels per slice where no normalization says; None: whole maps, no slices
    recompute: bool = False  # x̂ of a convolution that reads the sample is computed again rather than kept
    encoded: bool = False  # the first convolution reads a uint8 sample as it travels, rather than decoded
    sums_slices: bool = False  # a convolution's input gradient is summed slice by slice, its output's never held whole
    attends_first: bool = False  # single samples pass through as micro-batches do: attention first, then gradients


# The simplest first: of equal arenas the first is taken.
STRATEGIES = (
    Strategy(None),
    *(
        Strategy(channels, recompute, encoded, sums_slices)
        for channels in (4, 2, 1)
        for recompute in (False, True)
        for encoded in (False, True)
        for sums_slices in (False, True)
    ),
)

# What takes two or three times the work where there is attention: only for a budget that nothing else meets.
SLOWER_STRATEGIES = tuple(replace(strategy, attends_first=True) for strategy in STRATEGIES)
