"""Placement: buffers with lifetimes -> offsets in one arena (offset assignment).

Greedy by order: each buffer goes to the lowest offset that is free during its lifetime. Several orders are tried and
the best result is kept. The largest set of bytes that live at one moment is a lower bound for any placement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

BlockKey = tuple[str, str]  # (program, or "" for what outlives a sample; buffer)
Interval = tuple[int, int]  # first and last moment, both inclusive


@dataclass(frozen=True)
class Block:
    """Something to place: its size, and when it holds data. The intervals are sorted and disjoint."""

    key: BlockKey
    bytes: int
    intervals: tuple[Interval, ...]

    def __post_init__(self) -> None:
        flat = [moment for interval in self.intervals for moment in interval]
        if self.bytes < 1 or not flat or flat != sorted(flat):
            raise AssertionError(f"impossible block {self}")

    @property
    def lifetime(self) -> int:
        return sum(last - first + 1 for first, last in self.intervals)


@dataclass(frozen=True)
class Placement:
    """Offsets by key, the arena's size, and the lower bound; all in bytes."""

    offsets: Mapping[BlockKey, int]
    size: int
    lower_bound: int
    boundaries: tuple[int, ...] = ()  # offsets below `size` that no block lies across, ascending


ORDERS: tuple[Callable[[Block], tuple[int, ...]], ...] = (
    lambda block: (-block.bytes, block.intervals[0][0]),
    lambda block: (-block.bytes * block.lifetime, block.intervals[0][0]),
    lambda block: (-block.lifetime, -block.bytes),
    lambda block: (block.intervals[0][0], -block.bytes),
)


def lower_bound(blocks: Iterable[Block]) -> int:
    """Most bytes that hold data at one moment: no placement is smaller."""
    changes: dict[int, int] = {}
    for block in blocks:
        for first, last in block.intervals:
            changes[first] = changes.get(first, 0) + block.bytes
            changes[last + 1] = changes.get(last + 1, 0) - block.bytes
    return max(accumulate(change for _, change in sorted(changes.items())), default=0)


def place(blocks: Sequence[Block], boundaries: tuple[int, ...] = ()) -> Placement:
    """The best placement found; deterministic. No block lies across one of the `boundaries`."""
    conflicts = _conflicts(blocks)
    bound = lower_bound(blocks)
    best: tuple[dict[BlockKey, int], int] | None = None
    for order in ORDERS:
        found = _place_in_order(sorted(blocks, key=order), conflicts, boundaries)
        if best is None or found[1] < best[1]:
            best = found
        if best[1] == bound:
            break
    if best is None:
        return Placement({}, 0, 0)
    return Placement(*best, bound, tuple(boundary for boundary in boundaries if boundary < best[1]))


def _conflicts(blocks: Iterable[Block]) -> Mapping[BlockKey, Sequence[Block]]:
    """For each block the others that hold data at some moment when it does: one sweep over all intervals."""
    found: dict[BlockKey, dict[BlockKey, Block]] = {block.key: {} for block in blocks}
    starts = sorted((first, last, block.key, block) for block in blocks for first, last in block.intervals)
    live: list[tuple[int, Block]] = []  # (last moment, block)
    for first, last, _, block in starts:
        live = [entry for entry in live if entry[0] >= first]
        own = found[block.key]
        for _, other in live:
            if other is not block:
                own[other.key] = other
                found[other.key][block.key] = block
        live.append((last, block))
    return {key: tuple(others.values()) for key, others in found.items()}


def _place_in_order(
    blocks: Iterable[Block], conflicts: Mapping[BlockKey, Sequence[Block]], boundaries: tuple[int, ...]
) -> tuple[dict[BlockKey, int], int]:
    offsets: dict[BlockKey, int] = {}
    size = 0
    for block in blocks:
        taken = sorted((offsets[o.key], o.bytes) for o in conflicts[block.key] if o.key in offsets)
        offset = _clear_of(boundaries, 0, block.bytes)
        for start, length in taken:
            if offset + block.bytes <= start:
                break
            offset = _clear_of(boundaries, max(offset, start + length), block.bytes)
        offsets[block.key] = offset
        size = max(size, offset + block.bytes)
    return offsets, size


def _clear_of(boundaries: tuple[int, ...], offset: int, size: int) -> int:
    """The lowest offset from `offset` on where `size` bytes lie across no boundary."""
    for boundary in boundaries:
        if offset < boundary < offset + size:
            offset = boundary
    return offset
