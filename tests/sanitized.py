"""The generated library as a program of its own under AddressSanitizer and UndefinedBehaviorSanitizer.

Beside what bytes can tell, these end the program where it reads or writes outside the arena, a constant, the sample or
the results (each lies between guard zones), reads unaligned, shifts too far or overflows. The rest of the program is
tests/program.c: it carries out a `Script`, which knows the simulator's answers.
"""

from __future__ import annotations

import atexit
import functools
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmeta.codegen.boards import native_flags
from pmeta.codegen.plan.plan import Plan
from pmeta.codegen.project.c_source import ram_model
from pmeta.codegen.project.ram import library_ram
from pmeta.codegen.targets import Target, target_bytes, targets_of
from pmeta.host.simulator.arithmetic import canonical_bytes, crc32
from pmeta.host.simulator.simulator import Simulator
from tests.compiled import MODEL_SOURCES, bytes_in_use, compiler, kernel_objects, write_library

Flags = tuple[str, ...]

# Every access of what is inlined and unrolled would be checked apart, which takes a compiler minutes. Here such kernels
# are functions like any others, which take their shapes when they run, and are compiled once. Other tests see warnings.
BRIEF = ("-w", "-DPMETA_UNROLL=", "-DPMETA_UNROLL_SOME=")
CALLED = (*BRIEF, "-DPMETA_INLINE=extern inline __attribute__((gnu_inline))")
DEFINED = (*BRIEF, "-DPMETA_INLINE=")
CHECKS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SANITIZE = (*CHECKS, *CALLED)
# Kernels for this computer's vectors and for shorter ones, for cores with a floating-point unit, and for those without.
FOUR_LANES: Flags = ("-mno-avx2",) if platform.machine() == "x86_64" else ()
VECTOR_VARIANTS: tuple[Flags, ...] = ((), FOUR_LANES)
VARIANTS: tuple[Flags, ...] = (*VECTOR_VARIANTS, ("-DPMETA_SCALAR",), ("-DPMETA_SCALAR", "-DPMETA_SOFT_FLOAT"))
INLINED = ("pmeta_conv.h", "pmeta_max_pool.h", "pmeta_row_sums.h")  # headers that hold all such functions
PROGRAM = Path(__file__).with_name("program.c")
SECONDS = 120  # for one program: far more than any takes
MOST_WORDS = 3000  # characters of what a compiler or a sanitizer says
OK = struct.pack("<I", 0)  # PMETA_OK

Sample = npt.NDArray[np.generic]


@functools.cache
def fast_linker() -> tuple[str, ...]:
    """A third of the time of the usual one, where there is one."""
    return ("-fuse-ld=gold",) if shutil.which("ld.gold") else ()


@dataclass
class Script:
    """Requests to tests/program.c, and what it must answer; answers in float32 are compared in canonical form."""

    requests: bytearray = field(default_factory=bytearray)
    expected: list[tuple[str, bytes, bool]] = field(default_factory=list)  # (what it is, bytes, whether float32)

    def poison(self, free: npt.NDArray[np.bool_]) -> None:
        """Fill these bytes of the arena with 0xAA."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]]).astype(np.int8))).reshape(-1, 2)
        self._ask(b"p", len(edges), *(number for first, end in edges for number in (int(first), int(end - first))))

    def adapt_sample(self, simulator: Simulator, sample: Sample, target: Target, where: str) -> None:
        result = simulator.adapt_sample(sample, target)
        self._ask(b"a", data=target_bytes(target) + sample.tobytes())
        self.expected.append((f"{where}: status", OK, False))
        self.expected.append((f"{where}: logits", canonical_bytes(result.logits), True))
        self.expected.append((f"{where}: loss", canonical_bytes(result.loss), True))

    def predict(self, simulator: Simulator, sample: Sample, where: str) -> None:
        self._ask(b"q", data=sample.tobytes())
        self.expected.append((f"{where}: logits of a query", canonical_bytes(simulator.predict(sample)), True))

    def end_step(self, simulator: Simulator, samples: int, where: str) -> None:
        simulator.end_step(samples)
        self._ask(b"e", samples)
        self.expected.append((f"{where}: status at its end", OK, False))

    def tensors(self, simulator: Simulator, names: Iterable[str], where: str) -> None:
        """All tensors that learn, in the order of their numbers."""
        self._ask(b"t")
        for name in names:
            crc = struct.pack("<I", crc32(simulator.weights[name]))
            self.expected.append((f"{where}: CRC of {name}", OK + crc + OK, False))
            self.expected.append((f"{where}: {name}", simulator.tensor_bytes(name), False))

    def save_and_load(self, where: str) -> None:
        self._ask(b"s")
        self.expected.append((f"{where}: statuses of saving and loading", OK + OK, False))

    def _ask(self, letter: bytes, *numbers: int, data: bytes = b"") -> None:
        self.requests += letter + struct.pack(f"<{len(numbers)}I", *numbers) + data

    def check(self, answers: bytes) -> None:
        """AssertionError that names the first answer that differs."""
        for what, expected, is_float in self.expected:
            answer, answers = answers[: len(expected)], answers[len(expected) :]
            if is_float:
                answer = canonical_bytes(np.frombuffer(answer, np.float32))
            assert answer == expected, f"{what}: {answer.hex(' ', 4)}, expected {expected.hex(' ', 4)}"
        assert not answers, f"{len(answers)} bytes more than expected"


def adaptation_script(plan: Plan, support: Sample, targets: npt.NDArray[Any], queries: Sample) -> Script:
    """A whole adaptation and predictions all along, with poison in all bytes that hold nothing."""
    script, simulator = Script(), Simulator(plan.model)
    names = [weight.name for weight in plan.learned]
    script.poison(np.ones(plan.arena_bytes, bool))
    script.predict(simulator, queries[0], "before")
    for step in range(1, plan.model.adaptation.steps + 1):
        for index, (sample, target) in enumerate(zip(support, targets_of(targets), strict=True)):
            script.poison(~bytes_in_use(plan, step))
            script.adapt_sample(simulator, sample, target, f"step {step}, sample {index}")
            if index == 0:  # prediction is allowed within a step, and leaves the sums of gradients alone
                script.predict(simulator, queries[0], f"step {step}")
        script.end_step(simulator, len(support), f"step {step}")
        script.save_and_load(f"after step {step}")
        script.tensors(simulator, names, f"after step {step}")
        for query in queries:
            script.predict(simulator, query, f"after step {step}")
    return script


def assert_same_adaptation(
    plan: Plan, folder: Path, support: Sample, targets: npt.NDArray[Any], queries: Sample, variant: Flags = ()
) -> None:
    """The sanitized program answers what the simulator does, by bytes, and occupies the RAM that was predicted.

    variant: of the kernels, one of VARIANTS.
    """
    write_library(plan, folder)
    script = adaptation_script(plan, support, targets, queries)
    script.check(run(build(folder, variant), bytes(script.requests)))
    assert_predicted_ram(plan, folder)


def build(folder: Path, variant: Flags = ()) -> Path:
    """The program, from the library in `folder`: one translation unit without optimization, which compiles soonest."""
    sources = [name for name in MODEL_SOURCES if (folder / name).exists()]
    (folder / "library.c").write_text(_one_unit(sources), encoding="utf-8")
    (folder / "program.c").write_text(PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "whole.c").write_text('#include "library.c"\n#include "program.c"\n', encoding="utf-8")
    _compile(folder, *SANITIZE, *fast_linker(), "-o", "program", "whole.c", *sanitized_kernels(variant))
    return folder / "program"


@functools.cache
def sanitized_kernels(variant: Flags = ()) -> tuple[str, ...]:
    """Object files of all kernels, those that are compiled for shapes included."""
    folder = Path(tempfile.mkdtemp(prefix="pmeta-sanitized-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    objects = kernel_objects((*SANITIZE, *variant))
    (folder / "inlined.c").write_text("".join(f'#include "{name}"\n' for name in INLINED), encoding="utf-8")
    _compile(folder, *CHECKS, *DEFINED, *variant, f"-I{Path(objects[0]).parent}", "-c", "-o", "inlined.o", "inlined.c")
    return (*objects, str(folder / "inlined.o"))


def run(program: Path, requests: bytes) -> bytes:
    """What the program answers; AssertionError with the sanitizers' words where they stop it."""
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}
    done = subprocess.run([program], input=requests, capture_output=True, env=environment, timeout=SECONDS, check=False)
    assert done.returncode == 0, f"ends with {done.returncode}\n{done.stderr.decode(errors='replace')[:MOST_WORDS]}"
    return done.stdout


def assert_predicted_ram(plan: Plan, folder: Path) -> None:
    """Without sanitizers, which add to it, and without the kernels, which have no static data."""
    _compile(folder, *CALLED, "-c", "-o", "library.o", "library.c")
    occupied, predicted = library_ram([folder / "library.o"]), ram_model(plan)
    assert occupied == predicted, f"the library occupies {occupied} bytes of RAM, predicted are {predicted}"


def _one_unit(sources: Iterable[str]) -> str:
    """A C file that includes all `sources`; their functions of the same names stay apart."""
    lines = []
    for number, name in enumerate(sources):
        lines += [f"#define at at_{number}", f'#include "{name}"', "#undef at"]
    return "\n".join(lines) + "\n"


def _compile(folder: Path, *arguments: str) -> None:
    flags = [flag for flag in native_flags() if not flag.startswith("-O")]
    command = [compiler(), *flags, "-O0", "-pipe", *arguments]
    done = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, f"does not compile\n{done.stderr.decode(errors='replace')[:MOST_WORDS]}"
