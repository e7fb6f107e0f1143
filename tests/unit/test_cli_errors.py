"""How commands end: one line and a documented exit code, whatever names, terminals and disks do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pmeta.codegen.errors import DataError, PmetaError

pytestmark = pytest.mark.unit


def ends_with(statement: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process that runs `statement` as a command of pmeta would."""
    code = f"""
import typer
from rich.console import Console
from pmeta.codegen import cli_errors, errors
app = typer.Typer(pretty_exceptions_enable=False)
@app.command()
def command():
    {statement}
cli_errors.run(app)
"""
    return subprocess.run(
        [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
        check=False, timeout=60,
    )  # fmt: skip


def test_an_error_is_one_line_that_a_terminal_may_show() -> None:
    """Names come from hostile files: no line ends, no control sequences, no reversal of text, no endless line."""
    message = str(PmetaError("a\nb\x1b[2J", "c\u202ed\udcff", "x" * 10_000))
    assert message.startswith(r"c\u202ed\udcff: a\nb\x1b[2J; xxx")
    assert message.isprintable()
    assert len(message) < 1000


def test_an_error_keeps_its_parts() -> None:
    error = DataError("is cut off", "ü.npz", "write it again")
    assert str(error) == "ü.npz: is cut off; write it again"
    assert (error.what, error.where, error.todo) == ("is cut off", "ü.npz", "write it again")


@pytest.mark.parametrize(
    ("statement", "exit_code", "message"),
    [
        ("raise errors.FitError('is too large', 'here', 'shrink it')", 5, "error: here: is too large; shrink it\n"),
        ("raise MemoryError", 6, "error: input: needs more memory than there is; use a smaller one\n"),
        ("raise FileNotFoundError(2, 'No such file', 'x')", 6, "error: x: No such file; choose another place\n"),
        ("raise typer.Exit(1)", 1, ""),
        ("pass", 0, ""),
    ],
)
def test_exit_codes(statement: str, exit_code: int, message: str) -> None:
    done = ends_with(statement)
    assert (done.returncode, done.stdout, done.stderr) == (exit_code, "", message)


@pytest.mark.parametrize("statement", ["print('x')", "Console().print('x')", "print('x' * 100_000)"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_an_error(statement: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = ends_with(statement, full.fileno())
    assert done.returncode == DataError.exit_code
    assert done.stderr == "error: output: No space left on device; choose another place\n"


def test_a_reader_that_stops_reading_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = ends_with("print('x' * 100_000)", writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    done = ends_with("Console().print('ü ≠')", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\xfc \\u2260\n", "")
