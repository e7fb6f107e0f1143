"""The golden test program of a generated project, run natively under AddressSanitizer and UBSan.

The sanitizers put guard zones around the arena and every other object: a kernel that leaves its buffer's end of the
arena, an unaligned access or an overflow ends the program.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import native_flags
from pmeta.codegen.plan.placement import place
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.project.golden import SUPPORT_SAMPLES, find_reference, golden_values
from pmeta.codegen.project.templates import files_in, render, template_text
from tests.compiled import MODEL_SOURCES, compiler, write_library
from tests.models import random_4conv
from tests.networks import random_network
from tests.sanitized import SANITIZE, sanitized_kernels

pytestmark = pytest.mark.differential

BOARD = """
#include "board.h"
#include <stdio.h>
void board_init(void) {}
int32_t board_receive(void) { return getchar(); }
void board_send(const uint8_t *bytes, uint32_t count) { fwrite(bytes, 1, count, stdout); fflush(stdout); }
uint32_t board_stack_bytes_used(void) { return 0; }
"""


def build(
    model: Model,
    folder: Path,
    edit_header: Callable[[str], str] = str,
    samples: int = SUPPORT_SAMPLES,
    edit_plan: Callable[[Plan], Plan] = lambda plan: plan,
) -> Path:
    plan = edit_plan(make_plan(model))
    sources = [path for path in write_library(plan, folder) if path.name in MODEL_SOURCES]
    values = golden_values(model, tuple(weight.name for weight in plan.learned), find_reference(), samples)
    header = render("project/golden.h.j2", title="test", model_sha256="0" * 64, **values)
    (folder / "golden.h").write_text(edit_header(header))
    (folder / "board.h").write_text(files_in("link", (".h",))["board.h"])
    (folder / "test_main.c").write_text(template_text("project/test_main.c"))
    (folder / "board.c").write_text(BOARD)
    program = folder / "golden"
    sources += [folder / "test_main.c", folder / "board.c"]
    flags = [*native_flags(), "-O0", "-g", *SANITIZE]
    subprocess.run([compiler(), *flags, "-o", str(program), *map(str, sources), *sanitized_kernels()], check=True)
    return program


def run(program: Path) -> list[str]:
    done = subprocess.run([str(program)], input=b"\n", capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize("seed", range(1000, 1004))
def test_random_networks(seed: int, tmp_path: Path) -> None:
    model = random_network(seed)
    lines = run(build(model, tmp_path))
    assert lines[-1] == "DONE"
    assert len(lines) == 3 * model.adaptation.steps + 2
    assert all(line.startswith("PASS ") for line in lines[:-1])


def in_three_parts(plan: Plan) -> Plan:
    """The plan with its arena in three arrays, of which the first two are each a third of what one would be."""
    third = plan.arena_bytes // 24 * 8
    return replace(plan, placement=place(plan.blocks, (third, 2 * third)))


@pytest.mark.parametrize("seed", range(2000, 2004))
def test_an_arena_in_parts(seed: int, tmp_path: Path) -> None:
    """The same bits, and no access outside the three arrays."""
    model = random_4conv(seed, width=4, steps=2, alpha=np.random.default_rng(seed).random((9, 2)) < 0.6)
    lines = run(build(model, tmp_path, edit_plan=in_three_parts))
    assert all(name in (tmp_path / "pmeta_plan.c").read_text() for name in ("pmeta_arena_2;", "pmeta_arena_3;"))
    assert lines[-1] == "DONE"
    assert all(line.startswith("PASS ") for line in lines[:-1])


def test_without_support_samples_only_the_query_is_predicted(tmp_path: Path) -> None:
    assert run(build(random_4conv(4, width=4, steps=2), tmp_path, samples=0)) == ["PASS query", "DONE"]


def test_a_wrong_golden_value_fails(tmp_path: Path) -> None:
    model = random_4conv(4, width=4, steps=2)
    lines = run(build(model, tmp_path, lambda text: re.sub(r"(golden_tensor_crcs.* = {\n    {)", r"\1 1u ^ ", text)))
    failed = [line for line in lines if line.startswith("FAIL")]
    assert failed == ["FAIL tensors_step_1: 1 values differ from the reference"]
