"""Executed instructions against the committed ones, of a few cases on every core; `make bench` compares all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.counting_firmware import CORES, run
from benchmarks.emulated_counts import build_calls
from benchmarks.kernels.cases import Case, cases
from benchmarks.kernels.cycles import estimate_cycles
from benchmarks.kernels.measure import measure
from benchmarks.kernels.results import Results, grown, provenance, read
from pmeta.codegen.boards import MPS2_AN386, Board
from tests.boards import marks_of
from tests.models import random_samples

BY_NAME = {case.name: case for case in cases()}
SMALL = "conv 3×3, 32→32, 3×3"
QUICK = [
    *((MPS2_AN386, name) for name in ("conv 3×3, 16→16, 14×14", "3 conv, 16 filters, 28×28")),
    *((board, SMALL) for board in CORES if board is not MPS2_AN386),
]


@pytest.mark.parametrize(
    ("board", "case"),
    [pytest.param(board, BY_NAME[name], marks=marks_of(board), id=f"{board.core}: {name}") for board, name in QUICK],
)
def test_no_count_has_grown(board: Board, case: Case, tmp_path: Path) -> None:
    """By more than 2 %, or 25 % where the compiler is another one; `benchmarks.kernels --write` renews them."""
    results = Results(tuple(measure(case, board, tmp_path, estimates=False)), provenance([board]))
    committed = read()
    assert {row.key for row in results.rows} == {
        row.key for row in committed.rows if (row.core, row.case) == (board.core, case.name)
    }
    assert grown(committed, results) == []


@pytest.mark.parametrize(
    "board", [pytest.param(board, marks=marks_of(board), id=board.core) for board in CORES if not board.fpu]
)
def test_most_of_a_convolution_is_soft_float(board: Board, tmp_path: Path) -> None:
    """Of these, never more than all of it."""
    rows = measure(BY_NAME[SMALL], board, tmp_path)
    assert {row.operation for row in rows} == {f"conv_{p}" for p in ("forward", "weight_gradient", "input_gradient")}
    for row in rows:
        assert row.instructions is not None and row.soft_float is not None
        assert 0.7 * row.instructions < row.soft_float < row.instructions


@pytest.mark.emulated
def test_the_trace_that_cycles_are_estimated_from_has_the_instructions_that_the_timer_counts(tmp_path: Path) -> None:
    """Of every call; a timer's tick is 0.6 instructions, and with the loss it counts how that is handed back."""
    plan = BY_NAME[SMALL].plan
    program, calls = build_calls(plan, random_samples(plan.model, 0, 1)[0][0], MPS2_AN386, tmp_path)
    counted = run(program, MPS2_AN386, len(calls), "calls")
    traced = estimate_cycles(program, MPS2_AN386, len(calls))
    assert [one.instructions for one in traced] == pytest.approx(counted, abs=5, rel=0)
    assert all(one.cycles > one.instructions for one in traced)
