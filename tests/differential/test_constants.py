"""Many constants: they lie in a file that the assembler includes, and are the same ones for every compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile

from pmeta.codegen.boards import NETDUINOPLUS2
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.project import constants
from pmeta.codegen.project.constants import constant_arrays, constant_bytes
from tests.compiled import compiler, write_library
from tests.differential.test_simulator_c import assert_same_adaptation
from tests.models import random_4conv

pytestmark = pytest.mark.differential

COMPILERS = {
    "this computer's": (compiler(),),
    "clang": ("clang",),
    "GCC for Arm": ("arm-none-eabi-gcc", *NETDUINOPLUS2.gcc_flags),
    "clang for Arm": ("clang", "--target=thumbv7em-none-eabihf"),
    "clang for RISC-V": ("clang", "--target=riscv32-none-elf"),
}


@pytest.fixture
def in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "TEXT_LIMIT", 0)


@pytest.mark.usefixtures("in_a_file")
def test_adaptation_is_the_same(tmp_path: Path) -> None:
    assert_same_adaptation(random_4conv(3, width=4, steps=2), tmp_path)
    assert (tmp_path / "pmeta_weights.bin").exists()
    assert not (tmp_path / "pmeta_weights.c").exists()


@pytest.mark.usefixtures("in_a_file")
@pytest.mark.parametrize("name", COMPILERS)
def test_every_compiler_finds_every_value(name: str, tmp_path: Path) -> None:
    """One read-only section per array, which the linker can leave out, aligned for floats, with the array's bytes."""
    command = COMPILERS[name]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} on this machine")
    plan = make_plan(random_4conv(3, width=4, steps=2))
    write_library(plan, tmp_path)
    output = tmp_path / "weights.o"
    # As PlatformIO does: from another folder, with the library's own among the folders of -I.
    arguments = ["-I", str(tmp_path), "-c", str(tmp_path / "pmeta_weights.S"), "-o", str(output)]
    subprocess.run([*command, "-Wall", "-Werror", *arguments], check=True, cwd="/")
    with output.open("rb") as stream:
        elf = ELFFile(stream)
        symbols = {symbol.name: symbol for symbol in elf.get_section_by_name(".symtab").iter_symbols()}
        for array in constant_arrays(plan):
            symbol = symbols[f"pmeta_const_{array.identifier}"]
            section = elf.get_section(symbol["st_shndx"])
            assert section.name == f".rodata.pmeta_const_{array.identifier}"
            assert section["sh_addralign"] == 4
            assert section["sh_flags"] == 2  # allocated; neither written nor executed
            assert (symbol["st_size"], symbol["st_value"]) == (array.values.nbytes, 0)
            assert section.data() == array.values.astype("<f4").tobytes()


@pytest.mark.usefixtures("in_a_file")
@pytest.mark.parametrize(
    ("flags", "message"), [(["-U__ELF__"], "ELF targets"), (["-U__BYTE_ORDER__"], "little-endian values")]
)
def test_other_targets_are_refused(flags: list[str], message: str, tmp_path: Path) -> None:
    write_library(make_plan(random_4conv(3, width=4, steps=2)), tmp_path)
    command = [compiler(), *flags, "-c", "pmeta_weights.S", "-o", "weights.o"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert message in done.stderr


def test_the_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plan = make_plan(random_4conv(3, width=4, steps=2))
    for limit, expected in ((constant_bytes(plan), ".c"), (constant_bytes(plan) - 1, ".S")):
        monkeypatch.setattr(constants, "TEXT_LIMIT", limit)
        folder = tmp_path / expected
        folder.mkdir()
        assert [path.suffix for path in write_library(plan, folder) if path.stem == "pmeta_weights"] == [expected]
    values = np.fromfile(tmp_path / ".S" / "pmeta_weights.bin", "<f4")
    assert np.array_equal(values, np.concatenate([array.values.ravel() for array in constant_arrays(plan)]))
