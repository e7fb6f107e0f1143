"""The boards pmeta generates firmware for: what each has, how it is compiled, how it is run.

Everything board-specific in a generated project (compiler flags, PlatformIO's board file, the emulator's command
line) comes from this registry; the C sources are in `firmware_templates/boards/`.
"""

from __future__ import annotations

import dataclasses
import difflib
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pmeta.codegen.errors import ConfigError
from pmeta.codegen.numerics import HELIUM, STRICT, Numerics


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
    numerics: Numerics = STRICT  # follows from the core and the flags
    ram_origin: int = 0
    ram_bytes: int = 0  # of the region that holds everything, as long as it is large enough
    more_ram: tuple[MemoryRegion, ...] = ()  # where the arena goes on if it is not
    flash_bytes: int = 0
    clock_hz: int = 0
    flags: tuple[str, ...] = ()  # for the compiler, beside COMPILE_FLAGS
    linker_script: str = ""  # path below firmware_templates/boards/
    gnu_tools: tuple[str, ...] = ()  # prefixes that GCC and its tools go by; the first that is installed is used
    gcc_flags: tuple[str, ...] = ()  # choose the core for GCC
    clang_flags: tuple[str, ...] = ()  # the same for the clang in the ziglang package; none where it will not do
    qemu: tuple[str, ...] = ()  # the emulator and its options, but for the program and where the link goes

    def __post_init__(self) -> None:
        bare_metal = (self.ram_bytes, self.flash_bytes, self.linker_script, self.gnu_tools, self.gcc_flags)
        if self.kind == "bare-metal" and not all(bare_metal):
            raise ValueError(f"board {self.name}: bare metal needs memory sizes, a linker script, tools and core flags")
        if not self.fpu and self.clang_flags:
            raise ValueError(f"board {self.name}: the division of clang's soft-float library flushes to zero")
        if self.kind == "native" and (any(bare_metal) or self.clang_flags or self.qemu):
            raise ValueError(f"board {self.name}: the native board takes memory and core from the host")

    @property
    def all_ram_bytes(self) -> int:
        """Of all regions."""
        return self.ram_bytes + sum(region.bytes for region in self.more_ram)

    @property
    def emulated(self) -> bool:
        """Whether uploading starts QEMU instead of writing to hardware."""
        return bool(self.qemu)


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

# For cores that issue one instruction at a time: GCC's first scheduling pass moves loads so far ahead that blocks of
# sums no longer fit the registers (docs/kernels.md); renaming lets the second one keep products and sums apart.
IN_ORDER = ("-fno-schedule-insns", "-frename-registers")

NATIVE = Board(
    name="native",
    title="This computer",
    core="host",
    kind="native",
    fpu=True,
    sources=("native",),
    flags=("-O3",),
)

# For the native board, by `platform.machine()` where it is compiled: there it runs, and may use all that the processor
# has. Wider vectors give the same bits. Machines that are missing need nothing: on AArch64 all have the same vectors.
PROCESSOR_FLAGS: Mapping[str, tuple[str, ...]] = {"x86_64": ("-march=native",)}


def native_flags() -> tuple[str, ...]:
    """What the native board's sources are compiled with on this computer."""
    return (*COMPILE_FLAGS, *NATIVE.flags, *PROCESSOR_FLAGS.get(platform.machine(), ()))


NETDUINOPLUS2 = Board(
    name="netduinoplus2",
    title="Netduino Plus 2 (STM32F405), emulated",
    core="Cortex-M4F",
    kind="bare-metal",
    fpu=True,
    sources=("bare-metal", "cortex-m", "netduinoplus2"),
    ram_origin=0x2000_0000,
    ram_bytes=128 * 1024,
    flash_bytes=1024 * 1024,
    clock_hz=16_000_000,
    linker_script="netduinoplus2/board.ld",
    gnu_tools=("arm-none-eabi",),
    gcc_flags=("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", *IN_ORDER),
    # Plain cortex_m4 would silently mean soft float.
    clang_flags=("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp"),
    qemu=("qemu-system-arm", "-machine", "netduinoplus2"),
)

MPS2_AN386 = Board(
    name="mps2-an386",
    title="Arm MPS2+ with Cortex-M4F (AN386), emulated",
    core="Cortex-M4F",
    kind="bare-metal",
    fpu=True,
    sources=("bare-metal", "cortex-m", "mps", "mps2"),
    ram_origin=0x2000_0000,
    ram_bytes=4 * 1024 * 1024,
    flash_bytes=4 * 1024 * 1024,
    clock_hz=25_000_000,
    more_ram=(MemoryRegion("PSRAM", 0x2100_0000, 16 * 1024 * 1024),),
    linker_script="mps2/an386.ld",
    gnu_tools=NETDUINOPLUS2.gnu_tools,
    gcc_flags=NETDUINOPLUS2.gcc_flags,
    clang_flags=NETDUINOPLUS2.clang_flags,
    qemu=("qemu-system-arm", "-machine", "mps2-an386"),
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
    qemu=("qemu-system-arm", "-machine", "mps2-an500"),
)

MPS2_AN385 = dataclasses.replace(
    MPS2_AN386,
    name="mps2-an385",
    title="Arm MPS2+ with Cortex-M3 (AN385), emulated",
    core="Cortex-M3",
    fpu=False,
    sources=("bare-metal", "cortex-m", "soft-float", "mps", "mps2"),
    linker_script="mps2/an385.ld",
    gcc_flags=("-mcpu=cortex-m3", "-mthumb", "-mfloat-abi=soft"),
    clang_flags=(),
    qemu=("qemu-system-arm", "-machine", "mps2-an385"),
)

MPS3_AN547 = dataclasses.replace(
    MPS2_AN386,
    name="mps3-an547",
    title="Arm MPS3 with Cortex-M55 (AN547), emulated",
    core="Cortex-M55",
    sources=("bare-metal", "cortex-m", "mps", "mps3"),
    ram_origin=0x3000_0000,
    ram_bytes=512 * 1024,
    more_ram=(MemoryRegion("SRAM", 0x3100_0000, 4 * 1024 * 1024),),
    flash_bytes=512 * 1024,
    clock_hz=32_000_000,
    linker_script="mps3/an547.ld",
    # Without Helium, whose float vectors take subnormal numbers for zeros.
    gcc_flags=("-mcpu=cortex-m55+nomve", "-mthumb", "-mfloat-abi=hard", *IN_ORDER),
    clang_flags=("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55-mve-mve_fp+fp_armv8d16+fullfp16"),
    qemu=("qemu-system-arm", "-machine", "mps3-an547"),
)

MPS3_AN547_HELIUM = dataclasses.replace(
    MPS3_AN547,
    name="mps3-an547-helium",
    title="Arm MPS3 with Cortex-M55 (AN547) and its Helium, emulated",
    core="Cortex-M55 with Helium",
    numerics=HELIUM,
    # Only kernels written for it use Helium: what a compiler makes vectors of, docs/numerics.md does not say.
    gcc_flags=("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard", *IN_ORDER, "-fno-tree-vectorize"),
    clang_flags=(
        *("-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m55+mve_fp+fp_armv8d16+fullfp16"),
        *("-fno-vectorize", "-fno-slp-vectorize"),
    ),
)

HIFIVE1_REVB = Board(
    name="hifive1-revb",
    title="SiFive HiFive1 Rev B (FE310-G002), emulated",
    core="RV32IMAC",
    kind="bare-metal",
    fpu=False,
    sources=("bare-metal", "risc-v", "soft-float", "hifive1"),
    ram_origin=0x8000_0000,
    ram_bytes=16 * 1024,
    flash_bytes=4032 * 1024,
    clock_hz=16_000_000,
    linker_script="hifive1/revb.ld",
    gnu_tools=("riscv64-unknown-elf", "riscv32-unknown-elf", "riscv-none-elf"),
    gcc_flags=("-march=rv32imac", "-mabi=ilp32", "-msmall-data-limit=0"),
    # Semihosting ends the emulator on a fault; its calls for files go nowhere.
    qemu=(
        *("qemu-system-riscv32", "-machine", "sifive_e,revb=true"),
        *("-semihosting-config", "enable=on,target=gdb"),
    ),
)

_ALL = (NATIVE, NETDUINOPLUS2, MPS2_AN385, MPS2_AN386, MPS2_AN500, MPS3_AN547, MPS3_AN547_HELIUM, HIFIVE1_REVB)
BOARDS = {board.name: board for board in _ALL}


def find_board(name: str) -> Board:
    """The board of that name; raises ConfigError, which lists the names there are."""
    board = BOARDS.get(name)
    if board is None:
        known = ", ".join(BOARDS)
        close = difflib.get_close_matches(name, BOARDS, n=1)
        todo = f"did you mean {close[0]}? boards: {known}" if close else f"choose one of: {known}"
        raise ConfigError(f"no board is called {name!r}", "--board", todo)
    return board
