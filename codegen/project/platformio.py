"""The PlatformIO side of a generated project: platformio.ini, the development platform, the boards' sources.

The platform travels inside the project, in platform/pmeta/, which PlatformIO takes for installed (`platforms_dir`):
a build needs a compiler and PlatformIO, nothing from PlatformIO's registry but its build tool. (A `symlink://` platform
would not do: PlatformIO keeps one such link for all projects, and builds the second with the first one's platform.)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmeta.codegen.boards import COMPILE_FLAGS, PROCESSOR_FLAGS, Board, find_board
from pmeta.codegen.errors import ConfigError
from pmeta.codegen.project.resources import firmware_templates

STACK_BYTES = 2048  # what bare-metal boards reserve: networks need up to 700 (docs/boards.md), the rest is the user's

_PLATFORM = Path(__file__).parent / "platform"
_PLATFORM_FILES = (
    "platform.json",
    "platform.py",
    "builder/main.py",
    "builder/device.py",
    "builder/stack.py",
    "builder/machine_code.py",
)

_INI_HEAD = """\
; pio run -e ENV             builds, and compares the RAM predicted with the RAM linked
; pio run -e ENV -t upload   starts the program (in the emulator, on an emulated board); its port: .pmeta/ENV.json
; pio run -e ENV -t stop     ends it
; pio test -e ENV            runs the golden vectors on it

[platformio]
default_envs = {default}
platforms_dir = platform

[env]
platform = pmeta
lib_archive = no
test_framework = custom
test_build_src = yes
"""

_INI_BOARD = """
; {title}
[env:{name}]
board = {name}
build_src_filter = {sources}
"""


def platformio_files(board_names: Sequence[str], stack_bytes: int = STACK_BYTES) -> dict[str, str]:
    """Files of the project by path relative to it, for one environment per board; the first board is the default.

    `stack_bytes` (a multiple of 16) is what bare-metal boards reserve for the stack. Raises ConfigError for an unknown
    board, none at all, or one named twice.
    """
    if not board_names or len(set(board_names)) != len(board_names):
        raise ConfigError("needs at least one board, and each once", "--board", "name each board once")
    if stack_bytes <= 0 or stack_bytes % 16:
        raise ValueError(f"stack of {stack_bytes} bytes: not a positive multiple of 16")
    boards = [find_board(name) for name in board_names]

    files = {"platformio.ini": _ini(boards), ".gitignore": ".pio/\n.pmeta/\n"}
    for name in _PLATFORM_FILES:
        files[f"platform/pmeta/{name}"] = (_PLATFORM / name).read_text(encoding="utf-8")
    files["test/test_custom_runner.py"] = (_PLATFORM / "test_custom_runner.py").read_text(encoding="utf-8")
    for board in boards:
        files[f"platform/pmeta/boards/{board.name}.json"] = _board_file(board, stack_bytes)
        files.update(board_sources(board))
    return dict(sorted(files.items()))


def _ini(boards: Sequence[Board]) -> str:
    sections = [_INI_HEAD.format(default=boards[0].name)]
    for board in boards:
        sources = " ".join(["+<*.c>", *(f"+<boards/{folder}/>" for folder in board.sources)])
        sections.append(_INI_BOARD.format(title=board.title, name=board.name, sources=sources))
    return "".join(sections)


def board_sources(board: Board) -> dict[str, str]:
    """The board's files by path in the project; its folders hold C, headers and linker scripts."""
    root = firmware_templates() / "boards"
    files = sorted(path for folder in board.sources for path in (root / folder).iterdir() if path.is_file())
    return {f"src/boards/{path.relative_to(root).as_posix()}": path.read_text(encoding="utf-8") for path in files}


def _board_file(board: Board, stack_bytes: int) -> str:
    """PlatformIO's board manifest; `build` is what platform/builder/main.py reads."""
    fields: dict[str, Any] = {
        "name": board.title,
        "vendor": "pmeta",
        "url": "https://docs.platformio.org/",
        "build": {
            "kind": board.kind,
            "mcu": board.core,
            **({"f_cpu": f"{board.clock_hz}L"} if board.clock_hz else {}),
            "flags": [*COMPILE_FLAGS, *board.flags],
            "processor_flags": {name: list(flags) for name, flags in PROCESSOR_FLAGS.items() if board.kind == "native"},
            "gnu_tools": list(board.gnu_tools),
            "gcc_flags": list(board.gcc_flags),
            "clang_flags": list(board.clang_flags),
            "include": [f"src/boards/{folder}" for folder in board.sources],
            "linker_script": f"src/boards/{board.linker_script}" if board.linker_script else "",
            "ram_origin": board.ram_origin,
            "ram_bytes": board.ram_bytes,
            "more_ram": [dataclasses.asdict(region) for region in board.more_ram],
            "stack_bytes": stack_bytes,
            "qemu": list(board.qemu),
        },
        "upload": {"maximum_size": board.flash_bytes, "maximum_ram_size": board.all_ram_bytes},
    }
    return json.dumps(fields, indent=2) + "\n"
