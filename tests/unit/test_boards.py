"""The registry of boards, the files of their PlatformIO projects, and the program that starts and stops them."""

from __future__ import annotations

import configparser
import dataclasses
import importlib.util
import json
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

from pmeta.codegen.boards import BOARDS, NATIVE, NETDUINOPLUS2, find_board
from pmeta.codegen.errors import BuildError, ConfigError
from pmeta.codegen.project.c_source import arena_part_name
from pmeta.codegen.project.platformio import platformio_files
from pmeta.codegen.project.ram import RamCheck, library_ram, linked_ram
from pmeta.codegen.project.resources import firmware_templates

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def device() -> ModuleType:
    """platform/builder/device.py, which is a script of the generated project and in no package."""
    path = ROOT / "codegen" / "project" / "platform" / "builder" / "device.py"
    spec = importlib.util.spec_from_file_location("pmeta_device", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_find_board_by_name() -> None:
    assert all(find_board(name) is board and board.name == name for name, board in BOARDS.items())


@pytest.mark.parametrize(("name", "hint"), [("netduino2plus", "did you mean netduinoplus2?"), ("", "choose one of")])
def test_unknown_board_lists_the_known_ones(name: str, hint: str) -> None:
    with pytest.raises(ConfigError) as error:
        find_board(name)
    assert hint in str(error.value)
    assert all(known in str(error.value) for known in BOARDS)


def test_board_refuses_contradictions() -> None:
    with pytest.raises(ValueError, match="bare metal"):
        dataclasses.replace(NETDUINOPLUS2, ram_bytes=0)
    with pytest.raises(ValueError, match="soft-float"):
        dataclasses.replace(NETDUINOPLUS2, fpu=False)
    with pytest.raises(ValueError, match="native"):
        dataclasses.replace(NATIVE, qemu=NETDUINOPLUS2.qemu)


bare_metal = [board for board in BOARDS.values() if board.kind == "bare-metal"]


@pytest.mark.parametrize("board", bare_metal, ids=lambda board: board.name)
def test_a_board_without_fpu_has_a_square_root(board) -> None:
    assert ("soft-float" in board.sources) == (not board.fpu)


@pytest.mark.parametrize("board", bare_metal, ids=lambda board: board.name)
def test_linker_script_has_the_memory_of_the_registry(board) -> None:
    script = (firmware_templates() / "boards" / board.linker_script).read_text(encoding="utf-8")
    regions = re.findall(r"(\w+)\s+\(\w+\)\s*:\s*ORIGIN = (\w+), LENGTH = (\d+)K", script)
    memory = {name: (int(origin, 0), int(kib) * 1024) for name, origin, kib in regions}
    assert memory.pop("RAM") == (board.ram_origin, board.ram_bytes)
    assert memory.pop("FLASH")[1] == board.flash_bytes
    assert memory == {region.name: (region.origin, region.bytes) for region in board.more_ram}
    for number in range(len(board.more_ram)):
        assert f"*(.bss.{arena_part_name(number + 1)})" in script


def test_project_files_of_both_boards() -> None:
    files = platformio_files(["netduinoplus2", "native"], stack_bytes=2048)
    assert files == platformio_files(["netduinoplus2", "native"], stack_bytes=2048)

    ini = configparser.ConfigParser()
    ini.read_string(files["platformio.ini"])
    assert ini["platformio"]["default_envs"] == "netduinoplus2"
    for name in ("netduinoplus2", "native"):
        folders = re.findall(r"\+<(boards/[\w-]+/)>", ini[f"env:{name}"]["build_src_filter"])
        assert folders
        assert all(any(path.startswith(f"src/{folder}") for path in files) for folder in folders)

    build = json.loads(files["platform/pmeta/boards/netduinoplus2.json"])["build"]
    assert build["linker_script"] in files
    assert build["stack_bytes"] == 2048
    assert "-ffp-contract=off" in build["flags"]
    assert not any("\\" in path or path.startswith("/") for path in files)


def test_project_files_hold_only_the_boards_asked_for() -> None:
    files = platformio_files(["native"])
    assert not any("netduinoplus2" in path or "bare-metal" in path for path in files)
    assert "netduinoplus2" not in files["platformio.ini"]


@pytest.mark.parametrize("names", [[], ["native", "native"], ["nonesuch"]])
def test_project_files_refuse_wrong_boards(names: list[str]) -> None:
    with pytest.raises(ConfigError):
        platformio_files(names)


@pytest.mark.parametrize("stack_bytes", [0, -16, 4088])
def test_project_files_refuse_a_stack_the_core_cannot_use(stack_bytes: int) -> None:
    with pytest.raises(ValueError, match="multiple of 16"):
        platformio_files(["netduinoplus2"], stack_bytes)


def test_ram_check_says_by_how_much() -> None:
    assert str(RamCheck(98304, 98304)) == "RAM: predicted 98304 B, linked 98304 B: equal"
    assert str(RamCheck(98304, 98300)) == "RAM: predicted 98304 B, linked 98300 B: DIFFER by -4 B"


@pytest.mark.parametrize("content", [None, b"", b"\x7fELF", b"not an ELF file at all" * 10])
def test_ram_of_no_elf_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "program.elf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BuildError, match="ELF"):
        linked_ram(path, 0x2000_0000, 1024)
    with pytest.raises(BuildError, match="ELF"):
        library_ram([path])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"port": "x", "pid": "y"}', '{"port": "x"}', "\xff"])
def test_damaged_state_counts_as_none(device: ModuleType, tmp_path: Path, text: str) -> None:
    state = tmp_path / "native.json"
    state.write_text(text, encoding="latin-1")
    assert device.read_state(state) is None
    assert not device.stop(state)
    assert not state.exists()


def test_stop_leaves_other_programs_alone(device: ModuleType, tmp_path: Path) -> None:
    """The pid in an old state file may be anybody's by now; here it is this test's own."""
    state = tmp_path / "native.json"
    device.write_state(state, {"port": "/dev/pts/0", "pid": os.getpid()})
    assert not device.stop(state)
    assert not state.exists()


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_life_time_is_checked(device: ModuleType, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PMETA_EMULATOR_SECONDS", text)
    with pytest.raises(device.StartError, match="PMETA_EMULATOR_SECONDS"):
        device.life_seconds()


def test_start_says_why_a_program_did_not_start(device: ModuleType, tmp_path: Path) -> None:
    state = tmp_path / "folder" / "native.json"
    with pytest.raises(device.StartError, match="No such file"):
        device.start(state, tmp_path / "nonesuch", "")
    assert not state.exists()
