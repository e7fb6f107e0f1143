"""Firmware that counts its own instructions, on any emulated core: a generated library, built and run in QEMU.

The compiler and its flags are those of a generated project. With -icount, QEMU's timers advance with instructions, so
every run counts the same. The C is in benchmarks/counting/.
"""

from __future__ import annotations

import atexit
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Set
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from pmeta.codegen.boards import (
    COMPILE_FLAGS,
    HIFIVE1_REVB,
    MPS2_AN385,
    MPS2_AN386,
    MPS2_AN500,
    MPS3_AN547,
    MPS3_AN547_HELIUM,
    NETDUINOPLUS2,
    Board,
)
from pmeta.codegen.errors import BuildError
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.project.c_source import Title, library_sources, sample_bytes
from pmeta.codegen.project.kernel_files import headers_of
from pmeta.codegen.project.platformio import STACK_BYTES, board_sources
from pmeta.codegen.project.resources import firmware_templates
from pmeta.codegen.project.templates import files_in

COUNTING = Path(__file__).parent / "counting"
TITLE = Title("benchmark", "pmeta-gen", "0" * 64, "00" * 16)
END = 0xFFFFFFFF  # sent after the last count
MODEL_SOURCE = "pmeta_model.c"
PER_STEP = frozenset({"pmeta_clear", "pmeta_update"})  # called by MODEL_SOURCE, once per tensor that learns in a step
VALUES = frozenset({"pmeta_mean_squared_error", "pmeta_softmax_cross_entropy"})  # kernels that return a float
INSTRUCTIONS_OF_NOTHING = 2  # call and return, in soft_float.c

Sample = npt.NDArray[np.generic]  # as it travels
What = Literal["whole", "calls", "soft float"]  # instructions of steps, of kernel calls; soft-float operations of calls

# QEMU's `virt` machine: the core of the HiFive1, with room for any network.
VIRT_RV32 = replace(
    HIFIVE1_REVB,
    name="virt-rv32",
    title="QEMU's virt machine for RISC-V",
    sources=("bare-metal", "risc-v", "soft-float"),
    ram_origin=0x8100_0000,
    ram_bytes=112 << 20,
    flash_bytes=16 << 20,
    linker_script="virt/board.ld",
    qemu=("qemu-system-riscv32", "-machine", "virt", "-cpu", "rv32", "-bios", "none", "-m", "128M"),
)

# One board per core, with room for any network.
CORES = (MPS2_AN386, MPS2_AN500, MPS3_AN547, MPS3_AN547_HELIUM, MPS2_AN385, VIRT_RV32)


@dataclass(frozen=True)
class Machine:
    """A board as one counts on it."""

    board: Board
    icount: str  # QEMU's -icount
    timer: str  # the macro that chooses it (timer.h)
    instructions_per_tick: float
    folder: Path | None = None  # with the board's own files, where they are the benchmark's


# An instruction takes 2^shift ns of the emulated time.
_MACHINES = (
    Machine(NETDUINOPLUS2, "shift=0", "COUNT_TIM2", 1.0),
    *(Machine(board, "shift=6", "COUNT_CMSDK", 40 / 64) for board in (MPS2_AN385, MPS2_AN386, MPS2_AN500)),
    *(Machine(board, "shift=6", "COUNT_SYSTEM_COUNTER", 31.25 / 64) for board in (MPS3_AN547, MPS3_AN547_HELIUM)),
    Machine(HIFIVE1_REVB, "shift=0", "COUNT_MINSTRET", 1.0),
    Machine(VIRT_RV32, "shift=0", "COUNT_MINSTRET", 1.0, COUNTING / "virt"),
)
MACHINES = {machine.board.name: machine for machine in _MACHINES}

# The compiler's functions that stand for float instructions.
_SOFT_FLOAT = {
    "arm-none-eabi": (
        *("__aeabi_fadd", "__aeabi_fsub", "__aeabi_frsub", "__aeabi_fmul", "__aeabi_fdiv"),
        *(f"__aeabi_fcmp{relation}" for relation in ("eq", "lt", "le", "ge", "gt", "un")),
        *("__aeabi_i2f", "__aeabi_ui2f", "__aeabi_f2iz", "__aeabi_f2uiz"),
    ),
    "riscv64-unknown-elf": (
        *("__addsf3", "__subsf3", "__mulsf3", "__divsf3"),
        *(f"__{relation}sf2" for relation in ("eq", "ne", "lt", "le", "ge", "gt", "unord")),
        *("__floatsisf", "__floatunsisf", "__fixsfsi", "__fixunssfsi"),
    ),
}


def build(
    plan: Plan, sample: Sample, board: Board, folder: Path, what: What, functions: Set[str] = frozenset()
) -> Path:
    """The program, in a folder of its own; `functions` are the kernels whose calls are counted."""
    machine = MACHINES[board.name]
    if missing := [tool for tool in (compile_command(board)[0], board.qemu[0]) if shutil.which(tool) is None]:
        raise BuildError("needs a cross compiler and an emulator", ", ".join(missing), "install both")
    _write_library(plan, sample, folder)
    parts = _write_board(machine, folder)
    includes = (folder, COUNTING, firmware_templates() / "link", *parts)
    compile_ = [*compile_command(board), f"-DBOARD_STACK_BYTES={STACK_BYTES}", f"-D{machine.timer}"]
    compile_ += [f"-I{path}" for path in includes]
    files = [COUNTING / "count.c", *(path for part in parts for path in sorted(part.glob("*.c")))]
    link = ["-nostartfiles", "-nostdlib", "-Wl,-e,board_reset", "-Wl,--gc-sections"]
    link += [f"-Tsrc/boards/{board.linker_script}"]
    if what != "whole":
        compile_ += ["-DCOUNT_CALLS"]
        _write_counted(folder, functions)
    if what == "soft float":
        compile_ += ["-DCOUNT_SOFT_FLOAT"]
        files += [COUNTING / "soft_float.c"]
        link += _write_operations(board, folder)
    for name in _own_sources(board, folder):
        counted = "count_steps.h" if name == MODEL_SOURCE else "count_calls.h"
        options = ["-include", counted] if what != "whole" and name.endswith(".c") else []
        subprocess.run([*compile_, *options, "-c", name, "-o", f"{name}.o"], cwd=folder, check=True)
    objects = map(str, [*files, *library_objects(board, folder)])
    subprocess.run([*compile_, *link, *objects, "-lgcc", "-o", "program.elf"], cwd=folder, check=True)
    return folder / "program.elf"


def compile_command(board: Board) -> list[str]:
    """The compiler and its flags in a generated project."""
    return [
        f"{board.gnu_tools[0]}-gcc",
        *COMPILE_FLAGS,
        *board.flags,
        *board.gcc_flags,
        "-ffreestanding",
        "-fno-ipa-icf",
    ]


def library_objects(board: Board, folder: Path) -> list[Path]:
    """The object files of the library that `build` has built in `folder`."""
    kernels = (path for name, path in kernel_objects(board).items() if (folder / name).exists())
    return [*(folder / f"{name}.o" for name in _own_sources(board, folder)), *kernels]


def _own_sources(board: Board, folder: Path) -> list[str]:
    """What is to be compiled of the library in `folder`, but for the kernels."""
    return sorted(path.name for path in folder.glob("*.[cS]") if path.name not in kernel_objects(board))


@cache
def kernel_objects(board: Board) -> dict[str, Path]:
    """The kernels, which are the same for every model, compiled once: object file by source."""
    folder = Path(tempfile.mkdtemp(prefix="pmeta-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    texts = files_in("kernels", (".c", ".h"))
    for path, text in {**texts, **board_sources(board)}.items():
        (folder / Path(path).name).write_text(text, encoding="utf-8")
    names = [name for name in texts if name.endswith(".c")]
    subprocess.run([*compile_command(board), "-I.", "-c", *names], cwd=folder, check=True)
    return {name: (folder / name).with_suffix(".o") for name in names}


def run(program: Path, board: Board, count: int, what: What) -> list[float]:
    """`count` counts, without what counting itself takes; the first is of the sample's checksum."""
    machine = MACHINES[board.name]
    per_count = 2 if what == "soft float" else 1
    words = _words(program, machine, per_count * (count + 1) + 1)
    if words[-1] != END:
        raise BuildError(f"did not count {count} times", board.name, "compare the calls with the plan")
    if what != "soft float":
        return [(tick - words[0]) * machine.instructions_per_tick for tick in words[1:-1]]
    calls, ticks = words[:-1:2], words[1::2]
    overhead = ticks[0] / calls[0] * machine.instructions_per_tick - INSTRUCTIONS_OF_NOTHING
    pairs = zip(calls[1:], ticks[1:], strict=True)
    return [tick * machine.instructions_per_tick - overhead * number for number, tick in pairs]


def emulator_command(program: Path, board: Board) -> list[str]:
    """QEMU, which prints what the program sends."""
    icount = ["-icount", MACHINES[board.name].icount]
    return [*board.qemu, *icount, "-display", "none", "-monitor", "none", "-serial", "stdio", "-kernel", str(program)]


def _words(program: Path, machine: Machine, count: int) -> tuple[int, ...]:
    command = emulator_command(program, machine.board)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            sent = process.stdout.read(4 * count)
        finally:
            process.kill()
    if len(sent) < 4 * count:
        raise BuildError(f"only {len(sent)} of {4 * count} bytes came", machine.board.name, "look at the firmware")
    return struct.unpack(f"<{count}I", sent)


def _write_library(plan: Plan, sample: Sample, folder: Path) -> None:
    """The library and its sample."""
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


def _write_counted(folder: Path, functions: Set[str]) -> None:
    """Macros that count the calls of `functions` where the generated sources make them."""
    for header, counted in (("count_steps.h", PER_STEP), ("count_calls.h", functions - PER_STEP)):
        lines = [f'#include "{name}"' for name in ("count.h", *headers_of(counted))]
        lines += ["#include <string.h>", *(_macro(function) for function in sorted(counted))]
        (folder / header).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _macro(function: str) -> str:
    """Counts every call of a function; its own name inside is not expanded again."""
    call = f"{function}(__VA_ARGS__)"
    stop = f"count_stop_float({call})" if function in VALUES else f"{call}, count_stop()"
    return f"#define {function}(...) (count_start(), {stop})"


def _write_operations(board: Board, folder: Path) -> list[str]:
    """operations.h for soft_float.c; returns the linker's options that put it in between."""
    operations = _SOFT_FLOAT[board.gnu_tools[0]]
    text = "".join(f"OPERATION({name})\n" for name in operations)
    (folder / "operations.h").write_text(text, encoding="utf-8")
    return [f"-Wl,--wrap={name}" for name in operations]


def _write_board(machine: Machine, folder: Path) -> list[Path]:
    """The board's files, where its linker script finds them; returns their folders."""
    files = board_sources(machine.board)
    names = list(machine.board.sources)
    if machine.folder is not None:
        names.append(machine.folder.name)
        paths = sorted(machine.folder.iterdir())
        files |= {f"src/boards/{machine.folder.name}/{path.name}": path.read_text("utf-8") for path in paths}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / "src" / "boards" / name for name in names]


def versions(boards: Iterable[Board]) -> dict[str, str]:
    """What counted, for the file with the results."""
    compilers = {f"{board.gnu_tools[0]}-gcc" for board in boards}
    emulators = {board.qemu[0] for board in boards}
    level = next(flag for flag in COMPILE_FLAGS if flag.startswith("-O"))
    named = [f"{name} {_output(name, '-dumpfullversion')}, {level}" for name in sorted(compilers)]
    found = {_output(name, "--version").split()[3] for name in emulators}
    return {"compiler": "; ".join(named), "emulator": f"QEMU {', '.join(sorted(found))}, -icount"}


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
