"""Counts instructions of a generated library on the emulated cores: of every kernel call, or of a whole step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.counting_firmware import PER_STEP, Sample, What, build, run
from pmeta.codegen.boards import Board
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.plan.program import Call, Program
from pmeta.codegen.project.c_source import sample_bytes
from pmeta.codegen.project.channel_rates import FUNCTION as SCALE_CHANNELS
from pmeta.codegen.project.channel_rates import channel_rates
from pmeta.codegen.report.work import Work, call_work, kernel_name, scaling_work

CHECKSUM = "pmeta_crc32"


@dataclass(frozen=True)
class KernelCall:
    """One call, or one slice of it, as it is executed."""

    kernel: str
    work: Work
    layer: str  # the node's name; empty for what belongs to none
    step: int  # 0: the prediction, or the checksum that comes first


@dataclass(frozen=True)
class Counted:
    """Instructions of one call."""

    call: KernelCall
    instructions: float

    @property
    def kernel(self) -> str:
        return self.call.kernel

    @property
    def work(self) -> Work:
        return self.call.work


@dataclass(frozen=True)
class WholeCounts:
    """Instructions of a sample (the first: it clears the accumulators) and of the end of each step, of a prediction."""

    samples: tuple[float, ...]  # k = 1..K
    ends: tuple[float, ...]
    prediction: float


def count_calls(plan: Plan, sample: Sample, board: Board, folder: Path, what: What = "calls") -> list[Counted]:
    """Every kernel call of one sample in each step, of its checksum, of the steps' ends, and of one prediction.

    With what = "soft float": only the instructions in the compiler's soft-float operations.
    """
    program, calls = build_calls(plan, sample, board, folder, what)
    counts = run(program, board, len(calls), what)
    return [Counted(call, count) for call, count in zip(calls, counts, strict=True)]


def build_calls(
    plan: Plan, sample: Sample, board: Board, folder: Path, what: What = "calls"
) -> tuple[Path, list[KernelCall]]:
    """The firmware that counts calls, and the calls in the order in which it does."""
    calls = list(kernel_calls(plan))
    functions = {call.kernel for call in calls} - {CHECKSUM}
    return build(plan, sample, board, folder, what, functions), calls


def count_whole(plan: Plan, sample: Sample, board: Board, folder: Path) -> WholeCounts:
    """One sample in each step, the steps' ends, and one prediction, uninterrupted."""
    return run_whole(build(plan, sample, board, folder, "whole"), plan, board)


def run_whole(program: Path, plan: Plan, board: Board) -> WholeCounts:
    """The same of a program that is built."""
    _, *counts = run(program, board, 2 * len(plan.program_of_step) + 2, "whole")
    return WholeCounts(tuple(counts[:-1:2]), tuple(counts[1:-1:2]), counts[-1])


def kernel_calls(plan: Plan) -> Iterator[KernelCall]:
    """In the order in which they run."""
    clear, update = sorted(PER_STEP)
    yield KernelCall(CHECKSUM, {"byte": sample_bytes(plan), "call": 1}, "", 0)
    for step in range(1, len(plan.program_of_step) + 1):
        learning = [weight for weight in plan.learned if step in weight.steps]
        tensors = [({"element": weight.weight.bytes // 4, "call": 1}, weight.layer) for weight in learning]
        names = {f"tensor_{plan.names[weight.name]}" for weight in learning}
        yield from (KernelCall(clear, work, layer, step) for work, layer in tensors)
        yield from _program_calls(plan, plan.program(step), step)
        for rates in channel_rates(plan):
            if rates.tensor in names:
                yield KernelCall(SCALE_CHANNELS, scaling_work(rates), rates.layer, step)
        yield from (KernelCall(update, work, layer, step) for work, layer in tensors)
    yield from _program_calls(plan, plan.predict, 0)


def _program_calls(plan: Plan, program: Program, step: int) -> Iterator[KernelCall]:
    """The calls of a loop once for each slice."""
    for loop, calls in groupby(program.calls, key=lambda call: call.loop):
        once = [KernelCall(kernel_name(call), _work(plan, call), call.layer, step) for call in calls]
        yield from once * (loop.slices if loop else 1)


def _work(plan: Plan, call: Call) -> Work:
    work = call_work(call, plan.model.adaptation)
    if work is None:
        raise AssertionError(f"{call.function} has no work: add it to pmeta.codegen.report.work")
    return work
