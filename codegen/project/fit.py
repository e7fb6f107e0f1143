"""What a firmware takes, and whether its constants fit; what to do about its RAM is in budget.py."""

from __future__ import annotations

from collections.abc import Sequence

from pmeta.codegen.boards import Board
from pmeta.codegen.errors import FitError
from pmeta.codegen.manifest import StaticObject
from pmeta.codegen.plan.plan import STATE_BYTES, Plan
from pmeta.codegen.project.c_source import arena_part_name, sample_bytes
from pmeta.codegen.project.constants import constant_bytes
from pmeta.codegen.project.link_size import link_state_bytes
from pmeta.codegen.project.platformio import STACK_BYTES
from pmeta.codegen.support import STREAMED, Support

MAX_CONSTANT_BYTES = 256 << 20  # above any microcontroller's flash
MAX_ARENA_BYTES = (1 << 31) - 1  # offsets are 32 bits wide


def statics(plan: Plan, support: Support = STREAMED) -> tuple[StaticObject, ...]:
    """Every static object of a bare-metal firmware."""
    adaptation = plan.model.adaptation
    link = link_state_bytes(sample_bytes(plan), adaptation.ways, adaptation.regression)
    kept = support.ram_bytes(plan.model)
    return (
        *(StaticObject(arena_part_name(n), "model", size) for n, size in enumerate(plan.arena_parts)),
        StaticObject("state", "model", STATE_BYTES),
        *([StaticObject("support", "model", kept)] if kept else []),
        StaticObject("link_state", "link", link),
        StaticObject("stack", "stack", STACK_BYTES),
    )


def firmware_ram(plan: Plan, support: Support = STREAMED) -> int:
    """RAM of a whole bare-metal firmware."""
    return sum(static.bytes for static in statics(plan, support))


def check_fit(plan: Plan, boards: Sequence[Board], support: Support = STREAMED) -> None:
    """Raise FitError for the first board with too little flash, or where no computer could hold the network."""
    if constant_bytes(plan) > MAX_CONSTANT_BYTES:
        what = f"the weights take {constant_bytes(plan):,} bytes, at most {MAX_CONSTANT_BYTES:,} can be generated"
        raise FitError(what, f"model '{plan.graph.name}'", "use a smaller network")
    if plan.arena_bytes > MAX_ARENA_BYTES:
        what = f"needs an arena of {plan.arena_bytes:,} bytes, at most {MAX_ARENA_BYTES:,} are possible"
        raise FitError(what, f"model '{plan.graph.name}'", "let fewer layers learn, or pass a smaller --batch")
    for board in boards:
        if board.kind == "native":
            continue
        over = constant_bytes(plan) + support.flash_bytes(plan.model) - board.flash_bytes
        if over > 0:
            what = "weights and support set" if support.place == "flash" else "the weights alone"
            what = f"{what} are {over:,} bytes larger than its flash"
            raise FitError(what, f"board '{board.name}'", "use a smaller network")
