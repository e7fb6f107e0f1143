"""Estimated cycles of a Cortex-M4F, from the instructions that QEMU executes, one after the other.

QEMU writes every block of code as it translates it, and every block as it executes it (-d in_asm,exec,nochain). Each
instruction then counts as the manual of the core has it (Cortex-M4 Technical Reference Manual, DDI 0439, sections 3.3
and 7.2), with no wait states of flash or RAM:

- data processing, VADD, VSUB, VMUL, VCMP, VCVT, VMOV 1; MLA, MLS 2; SDIV, UDIV 7 (the manual: 2 to 12); VMLA, VMLS 3;
  VDIV, VSQRT 14
- LDR, VLDR, VSTR 2, or 1 right behind another single load or store; LDRD, STRD 3; STR 1; LDM, STM, VLDM, VSTM, PUSH,
  POP 1 for themselves and 1 per register
- a branch that is taken 3 (the manual: 2 to 4), one that is not 1
- one more where an instruction uses what the one before it has loaded, or computed in the floating-point unit

It is a model, not a measurement: no hardware was at hand.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pmeta.codegen.boards import Board
from pmeta.codegen.errors import BuildError

REFILL = 2  # cycles of a branch that is taken, beyond its own
REGISTER = re.compile(r"\b(?:[sdr]\d+|sp|lr|pc|ip|fp|sb|sl)\b")
RANGE = re.compile(r"([sdr])(\d+)-[sdr](\d+)")
ENCODING = re.compile(r"[0-9a-f]{4}")  # half a word of code
FLOAT = ("vadd", "vsub", "vmul", "vnmul", "vmla", "vmls", "vneg", "vabs", "vdiv", "vsqrt", "vcvt")
CYCLES = {"vmla": 3, "vmls": 3, "vdiv": 14, "vsqrt": 14, "mla": 2, "mls": 2, "sdiv": 7, "udiv": 7}


@dataclass(frozen=True)
class Instruction:
    """One instruction, as far as its time depends on it."""

    cycles: int  # by itself
    single: bool  # it loads or stores one register
    late: str  # register whose value comes one cycle later; empty: none does
    reads: frozenset[str]
    branches: bool

    @classmethod
    def parse(cls, mnemonic: str, operands: str) -> Instruction:
        """As QEMU's disassembler writes it, as in vmul.f32 and s15, s14, s13."""
        name = mnemonic.partition(".")[0]
        registers = REGISTER.findall(operands)
        accumulates = name in ("vmla", "vmls")
        reads = frozenset(
            registers if accumulates or name.startswith(("str", "vstr", "vcmp", "cmp")) else registers[1:]
        )
        if name.startswith(("ldm", "stm", "pop", "push", "vldm", "vstm", "vpush", "vpop")):
            return cls(1 + _listed(operands), False, "", reads, "pc" in registers)
        if name.startswith(("ldrd", "strd")):
            return cls(3, False, "", reads, False)
        if name.startswith(("ldr", "vldr")):
            return cls(2, True, registers[0], reads, registers[0] == "pc")
        if name.startswith(("str", "vstr")):
            return cls(2 if name.startswith("v") else 1, True, "", reads, False)
        late = registers[0] if name in FLOAT and registers else ""
        return cls(CYCLES.get(name, 1), False, late, reads, _is_branch(name))

    def after(self, previous: Instruction | None) -> int:
        """Cycles behind another instruction."""
        if previous is None:
            return self.cycles
        pipelined = self.single and previous.single and self.cycles == 2
        waits = bool(previous.late) and previous.late in self.reads
        return self.cycles - pipelined + waits


@dataclass(frozen=True)
class Block:
    """Code that is executed in one go."""

    start: int
    end: int  # address behind it
    instructions: tuple[Instruction, ...]

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Block:
        """Lines as 0x08000110:  ee77 7a87  vadd.f32 s15, s15, s14."""
        instructions, start, end = [], -1, 0
        for line in lines:
            address, _, text = line.partition(":")
            words = text.split()
            halves = next(n for n, word in enumerate(words) if not ENCODING.fullmatch(word))
            start = int(address, 16) if start < 0 else start
            end = int(address, 16) + 2 * halves
            instructions.append(Instruction.parse(words[halves], " ".join(words[halves + 1 :])))
        return cls(start, end, tuple(instructions))

    def cycles_after(self, previous: Block | None) -> int:
        """With what the branch to it takes."""
        last = previous.instructions[-1] if previous else None
        taken = previous is not None and last is not None and last.branches and previous.end != self.start
        total = REFILL if taken else 0
        for instruction in self.instructions:
            total += instruction.after(last)
            last = instruction
        return total


@dataclass(frozen=True)
class Estimate:
    """Between count_start() and count_stop()."""

    instructions: int
    cycles: int

    def minus(self, other: Estimate) -> Estimate:
        """Without what counting nothing takes."""
        return Estimate(self.instructions - other.instructions, self.cycles - other.cycles)


def estimate_cycles(program: Path, board: Board, count: int) -> list[Estimate]:
    """Of everything that a program of `counting_firmware` counts, in that order."""
    pipe = program.with_name("trace.fifo")
    os.mkfifo(pipe)
    command = [*board.qemu, "-display", "none", "-monitor", "none", "-serial", "null", "-kernel", str(program)]
    command += ["-d", "in_asm,exec,nochain", "-D", str(pipe)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            with pipe.open(encoding="ascii") as lines:
                found = list(islice(_windows(lines), count + 1))
        finally:
            process.kill()
            pipe.unlink()
    if len(found) != count + 1:
        raise BuildError(f"counted {len(found) - 1} times, not {count}", board.name, "compare the calls with the plan")
    return [estimate.minus(found[0]) for estimate in found[1:]]


def _windows(lines: Iterable[str]) -> Iterator[Estimate]:
    """What is executed from each count_start() to the next count_stop()."""
    blocks: dict[str, Block] = {}
    translated: list[str] = []
    counting, started, previous = Counter[tuple[str, str]](), False, ""
    for line in lines:
        if line.startswith("0x"):
            translated.append(line)
        elif line.startswith("Trace "):
            _, _, key, state, *symbol = line.split()
            if translated:
                block = Block.parse(translated)
                if block.start == int(state.split("/")[1], 16):
                    blocks[key] = block
                translated = []
            function = symbol[0] if symbol else ""
            if function == "counted_all":
                return
            if function == "count_start":
                counting, started, previous = Counter(), True, key
            elif started and function.startswith("count_stop"):
                started = False
                yield _sum(counting, blocks)
            elif started:
                counting[previous, key] += 1
                previous = key


def _sum(counting: Counter[tuple[str, str]], blocks: dict[str, Block]) -> Estimate:
    instructions = sum(len(blocks[key].instructions) * times for (_, key), times in counting.items())
    cycles = sum(blocks[key].cycles_after(blocks[previous]) * times for (previous, key), times in counting.items())
    return Estimate(instructions, cycles)


def _listed(operands: str) -> int:
    """Words of a list of registers, as r4, r6-r8 or d8."""
    total = 0
    for part in operands[operands.index("{") :].strip("{} ").split(","):
        found = RANGE.fullmatch(part.strip())
        total += (int(found[3]) - int(found[2]) + 1 if found else 1) * (2 if part.strip().startswith("d") else 1)
    return total


def _is_branch(name: str) -> bool:
    return name.startswith(("b", "cb", "tb")) and not name.startswith(("bic", "bfi", "bfc", "bkpt"))
