"""Measures a case on a core: instructions of every kernel call, or of whole steps and the bytes of their code."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile

from benchmarks.counting_firmware import build, compile_command, library_objects, run
from benchmarks.emulated_counts import KernelCall, build_calls, count_calls, run_whole
from benchmarks.kernels.cases import Case
from benchmarks.kernels.cycles import Estimate, estimate_cycles
from benchmarks.kernels.results import Row
from pmeta.codegen.boards import Board
from pmeta.codegen.operators import Conv, Gemm
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.project.regions import divided
from pmeta.codegen.report.macs import program_macs
from tests.models import random_samples

HAS_CYCLES = "Cortex-M4F"  # the core that `cycles` has a model of
OF_NETWORK = ("pmeta_crc32", "pmeta_clear", "pmeta_update")  # of the sample, or of every tensor that learns
ROOTS = ("pmeta_reset", "pmeta_adapt_sample", "pmeta_end_step", "pmeta_predict")  # what code is counted of


def measure(case: Case, board: Board, folder: Path, estimates: bool = True) -> list[Row]:
    """The rows of one case on one board's core; without `estimates` only what is compared with earlier results."""
    plan = divided(case.plan, [board])
    return list((_whole if case.whole else _calls)(case, plan, board, folder, estimates))


def _calls(case: Case, plan: Plan, board: Board, folder: Path, estimates: bool) -> Iterator[Row]:
    sample = random_samples(plan.model, 0, 1)[0][0]
    program, calls = build_calls(plan, sample, board, folder / "calls")
    counts = _by_operation(case, calls, run(program, board, len(calls), "calls"))
    cycles, floors = dict[str, float](), dict[str, float]()
    if estimates and board.core == HAS_CYCLES:
        traced = estimate_cycles(program, board, len(calls))
        cycles = _by_operation(case, calls, [one.cycles for one in traced])
    if estimates and not board.fpu:
        counted = count_calls(plan, sample, board, folder / "floats", "soft float")
        floors = _by_operation(case, calls, [one.instructions for one in counted])
    amounts = _by_operation(case, calls, [_amount(plan, call) for call in calls])
    units = {_operation(case, call): _unit(plan, call) for call in calls}
    for name, instructions in counts.items():
        floor = floors.get(name)
        yield Row(
            board.core,
            case.name,
            name,
            round(amounts[name]),
            units[name],
            instructions=round(instructions),
            cycles=round(cycles[name]) if cycles else None,
            soft_float=round(floor) if floor else None,
        )


def _by_operation(case: Case, calls: Sequence[KernelCall], values: Sequence[float]) -> dict[str, float]:
    """Sums of what belongs to a reported layer in step 1; all slices of a map are one operation."""
    sums: dict[str, float] = defaultdict(float)
    for call, value in zip(calls, values, strict=True):
        if _is_reported(case, call):
            sums[_operation(case, call)] += value
    return dict(sums)


def _is_reported(case: Case, call: KernelCall) -> bool:
    return "" in case.layers if call.kernel in OF_NETWORK else call.step == 1 and call.layer in case.layers


def _operation(case: Case, call: KernelCall) -> str:
    kernel = call.kernel.removeprefix("pmeta_")
    return kernel if call.kernel in OF_NETWORK or len(case.layers) == 1 else f"{call.layer} {kernel}"


def _amount(plan: Plan, call: KernelCall) -> float:
    """Nominal MACs, taps in the padding too, of a layer's whole output; of another call the first unit of its work."""
    node = _weighted(plan, call)
    if node is not None:
        return node.forward_macs(plan.graph.shapes[node.input])
    return next(iter(call.work.values()))


def _unit(plan: Plan, call: KernelCall) -> str:
    return "MAC" if _weighted(plan, call) is not None else next(iter(call.work))


def _weighted(plan: Plan, call: KernelCall) -> Conv | Gemm | None:
    """The convolution or fully connected layer whose MACs the call executes."""
    if not call.kernel.startswith(("pmeta_conv_", "pmeta_gemm_")):
        return None
    return next(n for n in plan.graph.nodes if n.name == call.layer and isinstance(n, Conv | Gemm))


def _whole(case: Case, plan: Plan, board: Board, folder: Path, estimates: bool) -> Iterator[Row]:
    sample = random_samples(plan.model, 0, 1)[0][0]
    program = build(plan, sample, board, folder, "whole")
    whole = run_whole(program, plan, board)
    traced = list[Estimate]()
    if estimates and board.core == HAS_CYCLES:
        _, *traced = estimate_cycles(program, board, 2 * len(whole.samples) + 2)
    for step, (first, end) in enumerate(zip(whole.samples, whole.ends, strict=True), start=1):
        cycles = sum(one.cycles for one in traced[2 * step - 2 : 2 * step]) or None
        macs = program_macs(plan, plan.program(step))
        name = f"step {step}, one sample"
        yield Row(board.core, case.name, name, macs, "MAC", instructions=round(first + end), cycles=cycles)
    macs, cycles = program_macs(plan, plan.predict), traced[-1].cycles if traced else None
    yield Row(board.core, case.name, "prediction", macs, "MAC", instructions=round(whole.prediction), cycles=cycles)
    size = code_bytes(library_objects(board, folder), board, folder / "library.o")
    yield Row(board.core, case.name, "code", size, "byte")


def code_bytes(objects: Sequence[Path], board: Board, linked: Path) -> int:
    """Bytes of code in a library's object files, as far as adaptation and prediction need it; `linked` is written.

    Without the compiler's own library.
    """
    roots = ["-Wl,--gc-sections", "-Wl,-e,pmeta_adapt_sample", *(f"-Wl,-u,{name}" for name in ROOTS)]
    command = [*compile_command(board), "-r", "-nostdlib", *roots, *map(str, objects), "-o", str(linked)]
    subprocess.run(command, check=True)
    with linked.open("rb") as stream:
        sections = ELFFile(stream).iter_sections()
        return sum(s["sh_size"] for s in sections if s["sh_flags"] & SH_FLAGS.SHF_EXECINSTR)
