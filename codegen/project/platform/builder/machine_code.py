"""Stack figures of functions that came compiled: those of the compiler's own library, as soft-float arithmetic calls.

    complete(graph, "program.elf", "arm-none-eabi-objdump")

GCC's call graph only names them. Their frames are read from the program's machine code, disassembled: the sum of all
that moves the stack pointer down, whatever the path. What cannot be read so stays unknown. Standard library only.
"""

from __future__ import annotations

import re
import subprocess
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from stack import INDIRECT, Function

SYMBOL = re.compile(r"([0-9a-f]+) .{7} \.text\S*\t([0-9a-f]+) (?:\.hidden )?(\S+)$")
INSTRUCTION = re.compile(r" *([0-9a-f]+):\t(\S+)(?:\t(.*))?$")
TARGET = re.compile(r"\b([0-9a-f]+) <")


@dataclass(frozen=True)
class Instruction:
    """One line of the disassembly."""

    mnemonic: str
    operands: str = ""


@dataclass
class Block:
    """From one symbol to the next."""

    name: str
    size: int = 0  # bytes of code; 0: to the next symbol
    instructions: list[Instruction] = field(default_factory=list)


def complete(graph: dict[str, Function], program: str, objdump: str) -> None:
    """Add to the graph what `program` holds of the functions without a frame, and of what those call."""
    waiting = [key for key in _unknown(graph) if key != INDIRECT]
    if not waiting:
        return
    command = [objdump, "-d", "-t", "--no-show-raw-insn", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        code = Code(done.stdout.splitlines())
        while waiting:
            key = waiting.pop()
            if graph.get(key, Function()).frame is None and (found := code.function(key)):
                graph[key] = found
                waiting.extend(found.calls)


def _unknown(graph: dict[str, Function]) -> Iterator[str]:
    """What is called, but not defined in what GCC has compiled."""
    called = {key for function in graph.values() for key in function.calls}
    return (key for key in sorted(called) if graph.get(key, Function()).frame is None)


class Code:
    """A program's code by function."""

    def __init__(self, lines: Iterable[str]) -> None:
        """`lines` as objdump writes them: the symbols, then the instructions."""
        self._addresses: dict[str, int] = {}
        found: dict[int, Block] = {}
        instructions: list[tuple[int, Instruction]] = []
        for line in lines:
            if symbol := SYMBOL.match(line):
                start, size = int(symbol[1], 16), int(symbol[2], 16)
                self._addresses[symbol[3]] = start
                if not symbol[3].startswith("."):
                    found.setdefault(start, Block(symbol[3])).size |= size
            elif instruction := INSTRUCTION.match(line):
                mnemonic, operands = instruction[2], instruction[3] or ""
                instructions.append((int(instruction[1], 16), Instruction(mnemonic.removesuffix(".w"), operands)))
        self._starts = sorted(found)
        self._blocks = [found[start] for start in self._starts]
        for address, code in instructions:
            if address >= self._starts[0]:
                start, block = self._at(address)
                if not block.size or address < start + block.size:  # else constants behind the code
                    block.instructions.append(code)

    def function(self, name: str) -> Function | None:
        """What the code of a function says; None where there is none, or it moves the stack pointer in another way."""
        address = self._addresses.get(name)
        if address is None:
            return None
        block = self._block(address)
        frame, calls = 0, dict[str, None]()
        for code in block.instructions:
            bytes_down = _bytes_down(code)
            if bytes_down is None:
                return None
            frame += bytes_down
            if target := TARGET.search(code.operands):
                if _jumps(code):
                    calls[self._block(int(target[1], 16)).name] = None
            elif code.mnemonic in ("blx", "jalr"):
                calls[INDIRECT] = None
        following = bisect_right(self._starts, address)
        if following < len(self._blocks) and _falls_through(block):
            calls[self._blocks[following].name] = None
        calls.pop(block.name, None)  # a loop
        return Function("", frame, True, calls)

    def _block(self, address: int) -> Block:
        return self._at(address)[1]

    def _at(self, address: int) -> tuple[int, Block]:
        """The block that an address lies in, and where it starts."""
        number = bisect_right(self._starts, address) - 1
        return self._starts[number], self._blocks[number]


def _jumps(code: Instruction) -> bool:
    return code.mnemonic.startswith(("b", "cb", "j", "tail", "call")) and not code.mnemonic.startswith(("bi", "bf"))


def _falls_through(block: Block) -> bool:
    """Whether execution can leave a block at its end."""
    padding = (".word", ".short", ".byte", "nop", "unimp")
    codes = [code for code in block.instructions if code.mnemonic not in padding]
    if not codes:
        return True
    mnemonic, operands = codes[-1].mnemonic.removesuffix(".n"), codes[-1].operands
    ends = mnemonic in ("b", "bx", "j", "jr", "ret", "tail", "ebreak", "bkpt", "udf")
    return not (ends or (mnemonic in ("pop", "ldmia", "ldr") and "pc" in operands))


# What moves the stack pointer down: by the registers of a list, by a number of bytes.
_BY_REGISTERS = re.compile(r"(?:v?push\w* |v?stmdb\w* sp!, )\{(.*)\}")
_BY_NUMBER = (
    re.compile(r"v?str\w* .*\[sp, #-(\d+)\]!"),
    re.compile(r"sub\w* sp, (?:sp, )?#(\d+)\b"),
    re.compile(r"(?:c\.)?addi?(?:16sp)? sp,(?:sp,)?-(\d+)\b"),
)
_HARMLESS = re.compile(
    r"(?:c\.)?addw?i?(?:16sp)? sp, ?(?:sp, ?)?#?\d+\b"  # up
    r"|v?ldm(?:ia)? sp!,|(?:v?st|v?ld|cmp|teq|[sl][bhw])\S* sp\b(?!!)"
)
_WRITTEN = re.compile(r"\S+ sp\b|.*\[sp.*\]!|.*\[sp\], .*-|msr\S* [mp]sp")


def _bytes_down(code: Instruction) -> int | None:
    """How far an instruction moves the stack pointer down (0: not, or up); None where that is not known."""
    text = f"{code.mnemonic} {code.operands}"
    if found := _BY_REGISTERS.match(text):
        return _register_bytes(found[1])
    if found := next(filter(None, (pattern.match(text) for pattern in _BY_NUMBER)), None):
        return int(found[1])
    return None if _WRITTEN.match(text) and not _HARMLESS.match(text) else 0


def _register_bytes(registers: str) -> int:
    """Of a list of registers, as r4, r6-r8, lr or d8-d9."""
    total = 0
    for part in registers.split(","):
        first, _, last = part.strip().partition("-")
        count = int(last[1:]) - int(first[1:]) + 1 if last else 1
        total += count * (8 if first.startswith("d") else 4)
    return total
