"""Counts instructions of generated firmware on the emulated boards: of every kernel call, or of a whole step.

Built with the compiler and the flags of a generated project, run in QEMU with -icount, where timers advance with
instructions and every run counts the same.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmeta.codegen.boards import COMPILE_FLAGS, Board
from pmeta.codegen.errors import BuildError
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.plan.program import Call, Program
from pmeta.codegen.project.c_source import Title, library_sources, sample_bytes
from pmeta.codegen.project.kernel_files import headers_of
from pmeta.codegen.project.platformio import STACK_BYTES, platformio_files
from pmeta.codegen.project.resources import firmware_templates
from pmeta.codegen.report.work import Work, call_work, kernel_name

COMPILER = "arm-none-eabi-gcc"
EMULATOR = "qemu-system-arm"
COUNTING = Path(__file__).parent / "counting"
TITLE = Title("benchmark", "pmeta-gen", "0" * 64, "00" * 16)
END = 0xFFFFFFFF  # sent after the last count
PER_STEP = ("pmeta_clear", "pmeta_update")  # called by pmeta_model.c, once per tensor that learns in a step
Sample = npt.NDArray[np.generic]  # as it travels
COUNTED_SOURCES = ("pmeta_model.c", "pmeta_plan.c")  # they contain the calls
VALUES = frozenset({"pmeta_mean_squared_error", "pmeta_softmax_cross_entropy"})  # kernels that return a float


@dataclass(frozen=True)
class _Timer:
    """How a machine counts instructions: the options of QEMU and of the compiler, instructions per tick."""

    icount: str
    define: str
    instructions_per_tick: float


_TIMERS = {
    "netduinoplus2": _Timer("shift=0", "COUNT_TIM2", 1.0),
    "mps2-an386": _Timer("shift=6", "COUNT_TIMER0", 40 / 64),
    "mps2-an500": _Timer("shift=6", "COUNT_TIMER0", 40 / 64),
}


@dataclass(frozen=True)
class Counted:
    """Instructions of one call, or of one slice of it."""

    kernel: str
    work: Work
    instructions: float


@dataclass(frozen=True)
class WholeCounts:
    """Instructions of a sample (the first: it clears the accumulators) and of the end of each step, of a prediction."""

    samples: tuple[float, ...]  # k = 1..K
    ends: tuple[float, ...]
    prediction: float


def count_calls(plan: Plan, sample: Sample, board: Board, folder: Path) -> list[Counted]:
    """Every kernel call of one sample in each step, of its checksum, of the steps' ends, and of one prediction."""
    steps = range(1, len(plan.program_of_step) + 1)
    expected: list[tuple[str, Work]] = [("pmeta_crc32", {"byte": sample_bytes(plan), "call": 1})]
    for step in steps:
        learned = [weight.weight.bytes // 4 for weight in plan.learned if step in weight.steps]
        expected += [("pmeta_clear", {"element": count, "call": 1}) for count in learned]
        expected += _program_work(plan, plan.program(step))
        expected += [("pmeta_update", {"element": count, "call": 1}) for count in learned]
    expected += _program_work(plan, plan.predict)
    functions = {kernel for kernel, _ in expected} - {"pmeta_crc32"}
    counts = _run(plan, sample, board, folder, len(expected), functions)
    return [Counted(kernel, work, count) for (kernel, work), count in zip(expected, counts, strict=True)]


def count_whole(plan: Plan, sample: Sample, board: Board, folder: Path) -> WholeCounts:
    """One sample in each step, the steps' ends, and one prediction, uninterrupted."""
    _, *counts = _run(plan, sample, board, folder, 2 * len(plan.program_of_step) + 2, None)
    return WholeCounts(tuple(counts[:-1:2]), tuple(counts[1:-1:2]), counts[-1])


def _program_work(plan: Plan, program: Program) -> Iterator[tuple[str, Work]]:
    """The calls in the order in which they run: those of a loop once for each slice."""
    for loop, calls in groupby(program.calls, key=lambda call: call.loop):
        once = [(kernel_name(call), _work(plan, call)) for call in calls]
        yield from once * (loop.slices if loop else 1)


def _work(plan: Plan, call: Call) -> Work:
    work = call_work(call, plan.model.adaptation)
    if work is None:
        raise AssertionError(f"{call.function} has no work: add it to pmeta.codegen.report.work")
    return work


def _run(
    plan: Plan,
    sample: Sample,
    board: Board,
    folder: Path,
    count: int,
    functions: Collection[str] | None,
) -> list[float]:
    """`count` instruction counts, without those that counting takes; the first is the checksum's."""
    timer = _TIMERS[board.name]
    _write_sources(plan, sample, folder, functions)
    program = _build(board, folder, functions is not None)
    command = [*board.qemu, "-icount", timer.icount, "-display", "none"]
    command += ["-monitor", "none", "-serial", "stdio", "-kernel", str(program)]
    size = 4 * (count + 2)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            sent = process.stdout.read(size)
        finally:
            process.kill()
    if len(sent) < size:
        raise BuildError(f"only {len(sent)} of {size} bytes came", board.name, "look at the firmware")
    nothing, *ticks, end = struct.unpack(f"<{count + 2}I", sent)
    if end != END:
        raise BuildError(f"did not count {count} times", board.name, "compare the calls with the plan")
    return [(tick - nothing) * timer.instructions_per_tick for tick in ticks]


def _write_sources(plan: Plan, sample: Sample, folder: Path, functions: Collection[str] | None) -> None:
    """The library, its sample, and macros that count the calls of `functions`."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = library_sources(plan, TITLE)
    for name, content in sources.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    raw = np.ascontiguousarray(sample).tobytes()
    if len(raw) != sample_bytes(plan):
        raise ValueError(f"a sample of {len(raw)} bytes, expected {sample_bytes(plan)}")
    declaration = f"static const uint8_t sample[{len(raw)}] __attribute__((aligned(4)))"
    text = f"{declaration} = {{{','.join(map(str, raw))}}};\n"
    if plan.model.adaptation.regression:
        text += "static const float target[PMETA_WAYS];\n#define TARGET target\n"
    else:
        text += "#define TARGET 0u\n"
    (folder / "sample.h").write_text(text, encoding="utf-8")
    if functions is not None:
        for source, counted in (("pmeta_model.c", PER_STEP), ("pmeta_plan.c", functions)):
            lines = [f'#include "{header}"' for header in ("count.h", *headers_of(counted))]
            lines += ["#include <string.h>", *(_macro(function) for function in sorted(counted))]
            (folder / f"count_{source}.h").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _macro(function: str) -> str:
    """Counts every call of a function; its own name inside is not expanded again."""
    call = f"{function}(__VA_ARGS__)"
    stop = f"count_stop_float({call})" if function in VALUES else f"{call}, count_stop()"
    return f"#define {function}(...) (count_start(), {stop})"


def _build(board: Board, folder: Path, count_calls: bool) -> Path:
    """The firmware from the sources in `folder`."""
    if shutil.which(COMPILER) is None or shutil.which(EMULATOR) is None:
        raise BuildError("needs a cross compiler and an emulator", f"{COMPILER}, {EMULATOR}", "install both")
    for name, text in platformio_files([board.name]).items():  # the linker script names its parts as in a project
        if name.startswith("src/boards/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
    parts = [folder / "src" / "boards" / part for part in board.sources]
    compile_ = [COMPILER, *COMPILE_FLAGS, *board.gcc_flags, "-ffreestanding", f"-DBOARD_STACK_BYTES={STACK_BYTES}"]
    compile_ += [f"-D{_TIMERS[board.name].define}", "-I.", f"-I{COUNTING}", f"-I{firmware_templates() / 'link'}"]
    compile_ += [f"-I{part}" for part in parts]
    compile_ += ["-DCOUNT_CALLS"] if count_calls else []
    for name in COUNTED_SOURCES:
        with_counts = ["-include", f"count_{name}.h"] if count_calls else []
        subprocess.run([*compile_, *with_counts, "-c", name, "-o", f"{name}.o"], cwd=folder, check=True)
    others = [path for path in sorted(folder.glob("*.[cS]")) if path.name not in COUNTED_SOURCES]
    others += [COUNTING / "count.c", *(path for part in parts for path in sorted(part.glob("*.c")))]
    link = ["-nostartfiles", "-nostdlib", "-Wl,-e,board_reset", "-Wl,--gc-sections"]
    link += [f"-Tsrc/boards/{board.linker_script}"]
    files = [*map(str, others), *(f"{name}.o" for name in COUNTED_SOURCES)]
    subprocess.run([*compile_, *link, *files, "-lgcc", "-o", "program.elf"], cwd=folder, check=True)
    return folder / "program.elf"
