"""The boards pmeta generates firmware for: what each has, how it is compiled, how it is run.

Everything board-specific in a generated project (compiler flags, PlatformIO's board file, the emulator's command
line) comes from this registry; the C sources are in `firmware_templates/boards/`.
"""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Literal

from pmeta.codegen.errors import ConfigError


@dataclass(frozen=True)
class MemoryRegion:
    """A piece of RAM with addresses of its own."""

    name: str  # as in the linker script
    origin: int
    bytes: int


@dataclass(frozen=True)
class Board:
    """One target. Addresses and sizes in bytes; 0 where the host's memory is the only limit."""

    name: str  # the PlatformIO environment and the value of `pmeta-gen --board`
    title: str
    core: str
    kind: Literal["native", "bare-metal"]
    fpu: bool  # float32 in hardware
    sources: tuple[str, ...]  # folders of firmware_templates/boards/
    ram_origin: int = 0
    ram_bytes: int = 0  # of the region that holds everything, as long as it is large enough
    more_ram: tuple[MemoryRegion, ...] = ()  # where the arena goes on if it is not
    flash_bytes: int = 0
    clock_hz: int = 0
    linker_script: str = ""  # path below firmware_templates/boards/
    gcc_flags: tuple[str, ...] = ()  # choose the core for GCC
    clang_flags: tuple[str, ...] = ()  # the same for the clang in the ziglang package
    qemu_machine: str = ""

    def __post_init__(self) -> None:
        bare_metal = (self.ram_bytes, self.flash_bytes, self.linker_script, self.gcc_flags, self.clang_flags)
        if self.kind == "bare-metal" and not all(bare_metal):
            raise ValueError(f"board {self.name}: a bare-metal board needs memory sizes, linker script and core flags")
        if self.kind == "native" and (any(bare_metal) or self.qemu_machine):
            raise ValueError(f"board {self.name}: the native board takes memory and core from the host")

    @property
    def all_ram_bytes(self) -> int:
        """Of all regions."""
        return self.ram_bytes + sum(region.bytes for region in self.more_ram)

    @property
    def emulated(self) -> bool:
        """Whether uploading starts QEMU instead of writing to hardware."""
        return bool(self.qemu_machine)


# The same language and arithmetic on every board: docs/numerics.md needs IEEE float32 without contraction, and
# -fno-math-errno lets __builtin_sqrtf become the core's own instruction. The arena is bytes that hold one type after
# another (-fno-strict-aliasing), and counts as RAM like any other static (-fno-common).
COMPILE_FLAGS = (
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Werror",
    "-O2",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-strict-aliasing",
    "-fno-common",
    "-ffunction-sections",
    "-fdata-sections",
)

NATIVE = Board(
    name="native",
    title="This computer",
    core="host",
    kind="native",
    fpu=True,
    sources=("native",),
)

NETDUINOPLUS2 = Board(
    name="netduinoplus2",
    title="Netduino Plus 2 (STM32F405), emulated",
    core="Cortex-M4F",
    kind="bare-metal",
    fpu=True,
    sources=("cortex-m", "netduinoplus2"),
    ram_origin=0x2000_0000,
    ram_bytes=128 * 1024,
    flash_bytes=1024 * 1024,
    clock_hz=16_000_000,
    linker_script="netduinoplus2/board.ld",
    gcc_flags=("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
    # Plain cortex_m4 would silently mean soft float.
    clang_flags=("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"),
    qemu_machine="netduinoplus2",
)

MPS2_AN386 = Board(
    name="mps2-an386",
    title="Arm MPS2+ with Cortex-M4F (AN386), emulated",
    core="Cortex-M4F",
    kind="bare-metal",
    fpu=True,
    sources=("cortex-m", "mps2"),
    ram_origin=0x2000_0000,
    ram_bytes=4 * 1024 * 1024,
    flash_bytes=4 * 1024 * 1024,
    clock_hz=25_000_000,
    more_ram=(MemoryRegion("PSRAM", 0x2100_0000, 16 * 1024 * 1024),),
    linker_script="mps2/an386.ld",
    gcc_flags=NETDUINOPLUS2.gcc_flags,
    clang_flags=NETDUINOPLUS2.clang_flags,
    qemu_machine="mps2-an386",
)

MPS2_AN500 = dataclasses.replace(
    MPS2_AN386,
    name="mps2-an500",
    title="Arm MPS2+ with Cortex-M7 (AN500), emulated",
    core="Cortex-M7",
    more_ram=(MemoryRegion("PSRAM", 0x6000_0000, 16 * 1024 * 1024),),
    linker_script="mps2/an500.ld",
    gcc_flags=("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
    clang_flags=("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16sp"),
    qemu_machine="mps2-an500",
)

BOARDS = {board.name: board for board in (NATIVE, NETDUINOPLUS2, MPS2_AN386, MPS2_AN500)}


def find_board(name: str) -> Board:
    """The board of that name; raises ConfigError, which lists the names there are."""
    board = BOARDS.get(name)
    if board is None:
        known = ", ".join(BOARDS)
        close = difflib.get_close_matches(name, BOARDS, n=1)
        todo = f"did you mean {close[0]}? boards: {known}" if close else f"choose one of: {known}"
        raise ConfigError(f"no board is called {name!r}", "--board", todo)
    return board
