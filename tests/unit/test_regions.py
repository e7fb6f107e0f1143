"""Boards with several regions of RAM: which part of the arena lies where, and when it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pmeta.codegen.boards import MPS2_AN500, NATIVE, NETDUINOPLUS2, Board, MemoryRegion
from pmeta.codegen.errors import FitError
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.project.fit import firmware_ram, statics
from pmeta.codegen.project.regions import divided
from tests.models import random_4conv

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(random_4conv(1, width=8, attention=False))


def board(plan: Plan, first: float, *more: float) -> Board:
    """A board whose regions hold these shares of the whole firmware."""
    total = firmware_ram(plan)
    regions = tuple(MemoryRegion(f"RAM{n}", n << 28, int(share * total)) for n, share in enumerate(more, start=4))
    return replace(MPS2_AN500, ram_bytes=int(first * total), more_ram=regions)


def test_one_part_where_it_fits(plan: Plan) -> None:
    assert divided(plan, [NATIVE, MPS2_AN500, board(plan, 1.0, 1.0)]) is plan
    assert plan.arena_parts == (plan.arena_bytes,)


def test_the_first_region_is_filled_before_the_next(plan: Plan) -> None:
    target = board(plan, 0.7, 1.0)
    parted = divided(plan, [NATIVE, target])
    first, second = parted.arena_parts
    others = firmware_ram(plan) - plan.arena_bytes
    assert target.ram_bytes - 8 < first + others <= target.ram_bytes
    assert 0 < second < plan.arena_bytes
    sizes = {static.name: static.bytes for static in statics(parted)}
    assert (sizes["pmeta_arena"], sizes["pmeta_arena_2"]) == (first, second)
    for block in parted.blocks:
        offset = parted.placement.offsets[block.key]
        assert offset + block.bytes <= first or offset >= first


def test_three_regions(plan: Plan) -> None:
    parted = divided(plan, [board(plan, 0.6, 0.35, 0.6)])
    assert len(parted.arena_parts) == 3
    assert sum(parted.arena_parts) == parted.arena_bytes >= plan.arena_bytes


def test_boards_with_other_regions_share_the_plan(plan: Plan) -> None:
    """The parts are as small as the neediest board's; a board of one region holds all of them there."""
    needy, roomy, one_piece = board(plan, 0.6, 1.0), board(plan, 0.8, 0.7), replace(NETDUINOPLUS2, ram_bytes=1 << 20)
    parted = divided(plan, [needy, roomy, one_piece])
    assert parted.arena_parts[0] <= needy.ram_bytes


def test_too_small_regions_are_refused(plan: Plan) -> None:
    with pytest.raises(FitError, match=r"its RAM4 has room for [\d,]+ bytes of the arena, [\d,]+ are needed"):
        divided(plan, [board(plan, 0.7, 0.1)])
    one_piece = replace(NETDUINOPLUS2, ram_bytes=firmware_ram(plan) // 2)
    with pytest.raises(FitError, match=r"board 'netduinoplus2': its RAM has room"):
        divided(plan, [board(plan, 0.7, 1.0), one_piece])
