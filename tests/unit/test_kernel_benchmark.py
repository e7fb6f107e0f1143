"""The benchmark of the kernels: its cases, the model of cycles, and what counts as grown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.kernels import results
from benchmarks.kernels.cases import cases
from benchmarks.kernels.cycles import Block, Estimate, Instruction, _windows
from benchmarks.kernels.results import Results, Row, grown
from pmeta.codegen.errors import ConfigError
from pmeta.codegen.report.macs import macs_by_pass
from tests.boards import CORES

pytestmark = pytest.mark.unit

ROW = Row("Cortex-M4F", "conv", "conv_forward", 1000, "MAC", instructions=10_000, cycles=15_000)
CODE = Row("Cortex-M4F", "conv", "code", 5_000, "byte")
GCC = {"compiler": "gcc 12, -O2; gcc-riscv 12, -O2"}


def test_cases_have_the_layers_that_they_report() -> None:
    """The one that results are compared by has 451,584 nominal MACs in each direction."""
    named = {case.name: case for case in cases()}
    assert len(named) == len(cases())
    for case in named.values():
        nodes = {node.name for node in case.plan.graph.nodes}
        assert case.whole or nodes.issuperset(set(case.layers) - {""})
    plan = named["conv 3×3, 16→16, 14×14"].plan
    conv = next(node for node in plan.graph.nodes if node.name == "conv2")
    assert conv.forward_macs(plan.graph.shapes[conv.input]) == 451_584
    functions = {call.function for call in plan.program(1).calls if call.layer == "conv2"}
    assert functions == {"pmeta_conv_forward", "pmeta_conv_weight_gradient", "pmeta_conv_input_gradient"}
    three_conv = named["3 conv, 16 filters, 28×28"].plan
    assert macs_by_pass(three_conv, three_conv.program(1)).total == pytest.approx(1.93e6, rel=0.02)


@pytest.mark.parametrize(
    ("factor", "provenance", "has_grown"),
    [(1.0, GCC, False), (1.019, GCC, False), (1.03, GCC, True), (0.5, GCC, False)]
    + [(1.03, {"compiler": "gcc 12, -O2"}, True), (1.03, {"compiler": "gcc 13, -O2"}, False)]
    + [(1.3, {"compiler": "gcc 13, -O2"}, True)],
)
@pytest.mark.parametrize("row", [ROW, CODE])
def test_growth(row: Row, factor: float, provenance: dict[str, str], has_grown: bool) -> None:
    """A compiler that the committed results do not name is given more."""
    instructions = None if row.instructions is None else round(factor * row.instructions)
    amount = round(factor * row.amount) if row is CODE else row.amount
    new = Results((replace(row, instructions=instructions, amount=amount),), provenance)
    assert bool(grown(Results((ROW, CODE), GCC), new)) == has_grown


def test_what_a_timer_cannot_tell_is_no_growth() -> None:
    small = replace(ROW, instructions=20)
    assert not grown(Results((small,), GCC), Results((replace(small, instructions=24),), GCC))
    assert not grown(Results((), GCC), Results((ROW,), GCC))  # there was nothing to compare with


def test_the_file_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    written = Results((ROW, CODE, replace(ROW, core="Cortex-M3", cycles=None, soft_float=8000)), GCC)
    results.write(written, path)
    assert results.read(path) == written


def test_what_was_not_measured_stays() -> None:
    """By core and case; a case's rows that are no more are gone, and so are cases that are no more."""
    other, another, gone = replace(ROW, core="Cortex-M3"), replace(ROW, case="fc"), replace(ROW, case="gone")
    now, earlier = replace(ROW, instructions=1), Results((gone, another, ROW, CODE, other))
    merged = Results((now,), GCC).with_rest_of(earlier, [one.group for one in (ROW, another, other)])
    assert merged == Results((now, another, other), GCC)


@pytest.mark.parametrize("text", [None, "core,case\nx,y\n", "core,case,operation,amount,unit\nx,y,z,many,MAC\n"])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "counts.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"benchmarks\.kernels --write"):
        results.read(path)


def test_the_committed_file_has_every_core() -> None:
    found = results.read()
    assert {row.core for row in found.rows} == {board.core for board in CORES}
    assert {"command", "compiler", "emulator"} <= found.provenance.keys()
    assert all(row.commit for row in found.rows)


@pytest.mark.parametrize(
    ("code", "cycles"),
    [
        (["vadd.f32 s0, s1, s2"], 1),
        (["vmla.f32 s0, s1, s2"], 3),
        (["vdiv.f32 s0, s1, s2"], 14),
        (["vmul.f32 s0, s1, s2", "vadd.f32 s3, s3, s4"], 2),
        (["vmul.f32 s0, s1, s2", "vadd.f32 s3, s3, s0"], 3),  # waits for s0
        (["vldr s0, [r0]"], 2),
        (["vldr s0, [r0]", "vldr s1, [r1]"], 3),  # back to back
        (["vldr s0, [r0]", "vldr s1, [r1]", "vmul.f32 s2, s0, s3"], 4),
        (["ldr r0, [r1]", "ldr r2, [r0]"], 4),
        (["vldmia r0!, {s0, s1, s4-s7}"], 7),
        (["push {r4, r5, lr}"], 4),
        (["vpush {d8}"], 3),
        (["add r0, r1, r2", "cmp r0, r3", "bne #0x0"], 3),
    ],
)
def test_cycles_of_a_block(code: list[str], cycles: int) -> None:
    block = Block(0, 4, tuple(Instruction.parse(*line.split(" ", 1)) for line in code))
    assert block.cycles_after(None) == cycles


TRACE = """
IN: count_start
0x00000010:  4770       bx       lr
Trace 0: 0x7f01 [00800408/00000010/00000110/ff000200] count_start
0x00000020:  ee30 0a81  vadd.f32 s0, s1, s2
0x00000024:  d1fc       bne      #0x20
Trace 0: 0x7f02 [00800408/00000020/00000110/ff000200] kernel
Trace 0: 0x7f02 [00800408/00000020/00000110/ff000200] kernel
0x00000026:  4770       bx       lr
Trace 0: 0x7f03 [00800408/00000026/00000110/ff000200] kernel
0x00000030:  4770       bx       lr
Trace 0: 0x7f04 [00800408/00000030/00000110/ff000200] count_stop
Trace 0: 0x7f03 [00800408/00000026/00000110/ff000200] kernel
0x00000040:  e7fe       b        #0x40
Trace 0: 0x7f05 [00800408/00000040/00000110/ff000200] counted_all
Trace 0: 0x7f01 [00800408/00000010/00000110/ff000200] count_start
"""


def test_a_trace_is_counted_between_start_and_stop() -> None:
    """The way in and the way back are taken branches, two cycles more each; the way on is none."""
    assert list(_windows(TRACE.splitlines())) == [Estimate(instructions=5, cycles=5 + 2 + 2)]
