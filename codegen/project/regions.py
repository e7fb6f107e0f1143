"""Boards whose RAM is in several pieces: the arena divided, where one piece is too small for all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from pmeta.codegen.boards import Board
from pmeta.codegen.errors import FitError
from pmeta.codegen.plan.placement import place
from pmeta.codegen.plan.plan import ARENA_ALIGNMENT, Plan
from pmeta.codegen.project.fit import firmware_ram
from pmeta.codegen.support import STREAMED, Support


def divided(plan: Plan, boards: Sequence[Board], support: Support = STREAMED) -> Plan:
    """The plan with its arena in as many parts as the boards' regions of RAM need; as it is where one part suffices.

    What is not arena lies in the first region. Raises FitError where no region has room for some part.
    """
    whole = firmware_ram(plan, support)
    others = whole - plan.arena_bytes
    in_need = [board for board in boards if board.more_ram and whole > board.ram_bytes]
    if not in_need:
        return plan
    for board in in_need:
        if others > board.ram_bytes:
            what = f"its first region of RAM has {board.ram_bytes:,} bytes, {others:,} are needed beside the arena"
            raise FitError(what, f"board '{board.name}'", "keep fewer support samples, or pass --support stream")
    room = [(board.ram_bytes - others, *(region.bytes for region in board.more_ram)) for board in in_need]
    least = [min(sizes) // ARENA_ALIGNMENT * ARENA_ALIGNMENT for sizes in zip(*room, strict=False)]
    boundaries = tuple(accumulate(least[:-1]))
    parted = replace(plan, placement=place(plan.blocks, boundaries))
    for board in boards:
        if board.kind != "native":
            _check(parted.arena_parts, board, others)
    return parted


def _check(parts: tuple[int, ...], board: Board, others: int) -> None:
    """Raise FitError where a part of the arena is larger than the board's region for it."""
    rooms = [("RAM", board.ram_bytes - others), *((region.name, region.bytes) for region in board.more_ram)]
    here = (parts[0] + sum(parts[len(rooms) :]), *parts[1 : len(rooms)])  # what has no region of its own is in RAM
    for part, (name, room) in zip(here, rooms, strict=False):
        if part > room:
            what = f"its {name} has room for {room:,} bytes of the arena, {part:,} are needed there"
            raise FitError(what, f"board '{board.name}'", "let fewer layers learn, or use a smaller network")
