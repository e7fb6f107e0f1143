"""Kernels that are compiled for shapes, called on an emulated board: one firmware makes many calls.

Their arguments lie in the board's second region of RAM, where QEMU loads them, each between fences as in tests.kernels.
After the last call the firmware sends all of that memory back.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.counting_firmware import compile_command, kernel_objects
from pmeta.codegen.boards import Board
from pmeta.codegen.project.platformio import STACK_BYTES, board_sources
from pmeta.codegen.project.resources import firmware_templates
from tests.kernels import FENCE, FOREIGN, Argument, Array, Fenced, in_place, layer_of


@dataclass(frozen=True)
class EmulatedCall:
    """As `tests.kernels.call`; what is `Fenced` holds afterwards what the board computed."""

    function: str
    arguments: tuple[Argument, ...]


def run_calls(board: Board, calls: Sequence[EmulatedCall], folder: Path) -> None:
    """Makes the calls on the emulated board, one after the other."""
    memory = _Memory(calls)
    (folder / "memory.bin").write_bytes(memory.image())
    origin = board.more_ram[0].origin
    program = _build(board, calls, memory, folder)
    command = [*board.qemu, "-kernel", str(program), "-display", "none", "-monitor", "none", "-serial", "stdio"]
    command += ["-device", f"loader,file={folder / 'memory.bin'},addr={origin},force-raw=on"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            sent = process.stdout.read(memory.size)
        finally:
            process.kill()
    assert len(sent) == memory.size, "the board did not answer"
    memory.take(sent)
    for call in calls:
        written = [argument for argument in call.arguments if isinstance(argument, Fenced)]
        assert all(argument.intact for argument in written), f"{call.function} writes outside its arguments"


class _Memory:
    """The arguments of all calls, one behind the other; one that several calls share lies there once."""

    def __init__(self, calls: Sequence[EmulatedCall]) -> None:
        self._placed: dict[int, tuple[int, Fenced]] = {}  # by what identifies an argument: where its fence begins
        self._only_read: list[Fenced] = []
        self.size = 0
        for call in calls:
            for argument in call.arguments:
                if isinstance(argument, Fenced | np.ndarray) and id(argument) not in self._placed:
                    self._placed[id(argument)] = (self.size, self._fenced(argument))
                    self.size += -(-(2 * FENCE + argument_bytes(argument)) // 4) * 4

    def _fenced(self, argument: Fenced | Array) -> Fenced:
        if isinstance(argument, Fenced):
            return argument
        self._only_read.append(in_place(argument, FOREIGN))
        return self._only_read[-1]

    def offset(self, argument: Fenced | Array) -> int:
        """Of its first element."""
        return self._placed[id(argument)][0] + FENCE

    def image(self) -> bytes:
        """Before the first call."""
        image = np.zeros(self.size, np.uint8)
        for at, fenced in self._placed.values():
            image[at : at + fenced.raw.size] = fenced.raw
        return image.tobytes()

    def take(self, sent: bytes) -> None:
        """After the last call."""
        image = np.frombuffer(sent, np.uint8)
        for at, fenced in self._placed.values():
            now = image[at : at + fenced.raw.size]
            changed = bool((now != fenced.raw).any())
            assert not (changed and any(fenced is other for other in self._only_read)), "a read-only argument changed"
            fenced.raw[:] = now


def argument_bytes(argument: Fenced | Array) -> int:
    return int((argument.array if isinstance(argument, Fenced) else argument).nbytes)


def _build(board: Board, calls: Sequence[EmulatedCall], memory: _Memory, folder: Path) -> Path:
    """The program, in a folder of its own."""
    layers = [layer_of(call.function, call.arguments) for call in calls]
    entries = {layer: f"entry_{number}" for number, layer in enumerate(dict.fromkeys(layers))}
    statements = [_statement(entries[layer], call, memory) for layer, call in zip(layers, calls, strict=True)]
    origin = board.more_ram[0].origin
    main = [
        '#include "board.h"',
        *(layer.source(entry) for layer, entry in entries.items()),
        f"static uint8_t *volatile memory = (uint8_t *){origin:#x}u;",
        "int main(void) {",
        "board_init();",
        *statements,
        f"board_send(memory, {memory.size}u);",
        "for (;;) {}",
        "}",
    ]
    (folder / "main.c").write_text("\n".join(main) + "\n", encoding="utf-8")
    for path, text in board_sources(board).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    own = [folder / "src" / "boards" / name for name in board.sources]
    kernels = kernel_objects(board)
    includes = [Path(next(iter(kernels.values()))).parent, firmware_templates() / "link", *own]
    command = [*compile_command(board), f"-DBOARD_STACK_BYTES={STACK_BYTES}", *(f"-I{path}" for path in includes)]
    command += ["-nostartfiles", "-nostdlib", "-Wl,-e,board_reset", "-Wl,--gc-sections"]
    command += [f"-Tsrc/boards/{board.linker_script}", "main.c", *(str(p) for path in own for p in path.glob("*.c"))]
    subprocess.run([*command, *kernels.values(), "-lgcc", "-o", "program.elf"], cwd=folder, check=True)
    return folder / "program.elf"


def _statement(entry: str, call: EmulatedCall, memory: _Memory) -> str:
    """One call in C; the shape is a constant behind it."""
    passed = ["0"]
    for argument in call.arguments[1:]:
        if isinstance(argument, Fenced | np.ndarray):
            passed.append(f"(void *)(memory + {memory.offset(argument)}u)")
        else:
            passed.append("0" if argument is None else repr(argument))
    return f"{entry}({', '.join(passed)});"
