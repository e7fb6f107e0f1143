"""Placement: nothing that lives at the same moment shares a byte, and little is wasted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.plan.placement import Block, place

pytestmark = pytest.mark.unit


def live_bytes(blocks: Sequence[Block], moment: int) -> int:
    """Bytes that hold data at a moment, counted block by block."""
    return sum(b.bytes for b in blocks if any(first <= moment <= last for first, last in b.intervals))


@st.composite
def blocks(draw: st.DrawFn) -> list[Block]:
    made = []
    for number in range(draw(st.integers(1, 14))):
        moments = sorted(draw(st.sets(st.integers(0, 30), min_size=1, max_size=4)))
        moments += moments[-1:] * (len(moments) % 2)
        intervals = tuple(zip(moments[::2], moments[1::2], strict=True))
        made.append(Block(("", str(number)), 4 * draw(st.integers(1, 50)), intervals))
    return made


@given(blocks())
def test_live_blocks_never_share_a_byte(made: list[Block]) -> None:
    placement = place(made)
    for moment in range(31):
        alive = [b for b in made if live_bytes([b], moment)]
        used: set[int] = set()
        for block in alive:
            offset = placement.offsets[block.key]
            area = set(range(offset, offset + block.bytes))
            assert not used & area
            used |= area
            assert offset >= 0
            assert offset + block.bytes <= placement.size


@given(blocks(), st.lists(st.integers(1, 400), max_size=3, unique=True))
def test_no_block_lies_across_a_boundary(made: list[Block], boundaries: list[int]) -> None:
    placement = place(made, tuple(sorted(boundaries)))
    for block in made:
        offset = placement.offsets[block.key]
        assert not any(offset < boundary < offset + block.bytes for boundary in boundaries)
    assert placement.boundaries == tuple(boundary for boundary in sorted(boundaries) if boundary < placement.size)
    for moment in range(31):
        areas = sorted((placement.offsets[b.key], b.bytes) for b in made if live_bytes([b], moment))
        assert all(start + size <= after for (start, size), (after, _) in pairwise(areas))


@given(blocks())
def test_size_lies_between_the_bound_and_the_sum(made: list[Block]) -> None:
    placement = place(made)
    assert placement.lower_bound <= placement.size <= sum(block.bytes for block in made)
    assert placement.lower_bound == max(live_bytes(made, moment) for moment in range(31))


def test_a_stack_of_lifetimes_is_placed_without_waste() -> None:
    made = [Block(("", name), 100, ((first, last),)) for name, first, last in (("a", 0, 1), ("b", 1, 2), ("c", 2, 3))]
    assert place(made).size == 200
