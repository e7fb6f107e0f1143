"""The examples, command by command as their pages say: trained, generated, built, adapted on the native board."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pmeta.codegen.boards import COMPILE_FLAGS
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.support import Support
from tests.compiled import compiler, write_library
from tests.models import random_4conv

pytest.importorskip("torch")

pytestmark = pytest.mark.differential

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(page.parent.name for page in (ROOT / "examples").glob("*/README.md"))


def commands(example: str) -> Iterator[list[str]]:
    """Of the page's sh block."""
    page = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```sh\n(.*?)```", page, re.S)
    assert found is not None
    yield from map(shlex.split, found[1].splitlines())


def run(folder: Path, command: list[str]) -> str:
    """A command in `folder`; its output."""
    program, *arguments = command
    if program != "python":
        arguments = ["-c", f"from pmeta.{PROGRAMS[program]}.cli import main; main()", *arguments]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


USE = '#include "pmeta_model.h"\nvoid use(const float *window, uint32_t label)\n'  # around what a page shows
PROGRAMS = {"pmeta-gen": "codegen", "pmeta-host": "host"}


def test_the_c_of_the_pages_compiles(tmp_path: Path) -> None:
    """Against a library that keeps its support set."""
    write_library(make_plan(random_4conv(0, width=4)), tmp_path, Support("ram", 15))
    for example in EXAMPLES:
        page = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")
        for snippet in re.findall(r"```c\n(.*?)```", page, re.S):
            source = tmp_path / f"{example}.c"
            source.write_text(f"{USE}{{\n{snippet}}}\n", encoding="utf-8")
            subprocess.run([compiler(), *COMPILE_FLAGS, "-fsyntax-only", str(source)], check=True)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_command(example: str, platformio, tmp_path: Path) -> None:
    """The device agrees with the simulator by bits, and has learned something."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    printed = ""
    *work, stop = commands(example)
    try:
        for command in work:
            if command[0] == "pio":
                done = platformio(tmp_path, *command[1:])
                assert done.returncode == 0, done.stdout
            else:
                printed = run(tmp_path, command)
    finally:
        platformio(tmp_path, *stop[1:])
    summary = next(line for line in printed.splitlines() if line.startswith("5 tasks, "))
    found = re.match(
        r"5 tasks, .* (\S+) ± \S+ before, (\S+) ± \S+ after .*; device = simulator in all of them", summary
    )
    assert found is not None, printed
    before, after = (float(text.rstrip("%")) for text in found.groups())
    assert after < before / 3 if "squared error" in summary else after > 2 * before
