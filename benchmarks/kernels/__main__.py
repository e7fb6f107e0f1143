"""Counts what kernels and whole steps execute on every emulated core, and times them on this computer.

    make bench
    python -m benchmarks.kernels --core Cortex-M4F --case "conv 3×3" --no-native

Exit code 1 where a count is more than 2 % above the committed one, in benchmarks/kernels/counts.csv. --write renews it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.counting_firmware import CORES
from benchmarks.kernels.cases import Case, cases
from benchmarks.kernels.measure import measure
from benchmarks.kernels.results import FILE, Results, Row, current_commit, grown, provenance, read, write
from benchmarks.kernels.tables import tables
from pmeta.codegen import cli_errors
from pmeta.codegen.boards import Board
from pmeta.codegen.errors import ConfigError

COMMAND = "python -m benchmarks.kernels"


def main(
    core: Annotated[list[str] | None, typer.Option(help="Only this core; may be given again.")] = None,
    case: Annotated[str, typer.Option(help="Only cases whose name contains this.")] = "",
    renew: Annotated[bool, typer.Option("--write", help=f"Write {FILE.name}, rather than compare with it.")] = False,
    native: Annotated[bool, typer.Option(help="Time the library on this computer, beside PyTorch.")] = True,
) -> None:
    """Measure and print; compare with the committed counts, or renew them."""
    console = Console(width=160)
    chosen, boards = [one for one in cases() if case in one.name], _boards(core or [], console)
    if not chosen or not boards:
        raise ConfigError("nothing to measure", "--case" if boards else "--core", f"run: {COMMAND} --help")
    before = read() if FILE.exists() else Results(())
    results = Results(tuple(_measured(chosen, boards)), provenance(boards))
    for table in tables(results, before):
        console.print(table)
    if native:
        from benchmarks.kernels.native import native_table  # PyTorch takes seconds to load

        console.print(native_table())
    if renew:
        write(results.with_rest_of(before, [(board.core, one.name) for board in CORES for one in cases()]))
        return
    problems = grown(before, results)
    for line in problems:
        console.print(f"[red]grown[/] {line}", soft_wrap=True)
    raise typer.Exit(1 if problems else 0)


def _boards(cores: Sequence[str], console: Console) -> list[Board]:
    """Those of the cores that are asked for and can be emulated here."""
    known = {board.core for board in CORES}
    if unknown := set(cores) - known:
        raise ConfigError(f"no such core: {', '.join(sorted(unknown))}", "--core", f"cores: {', '.join(sorted(known))}")
    found = []
    for board in CORES:
        missing = [tool for tool in (f"{board.gnu_tools[0]}-gcc", board.qemu[0]) if shutil.which(tool) is None]
        if cores and board.core not in cores:
            continue
        if missing:
            console.print(f"{board.core} is left out: {' and '.join(missing)} not installed")
        else:
            found.append(board)
    return found


def _measured(chosen: Sequence[Case], boards: Sequence[Board]) -> list[Row]:
    rows, commit = list[Row](), current_commit()
    with Progress(console=Console(stderr=True), transient=True) as progress, tempfile.TemporaryDirectory() as folder:
        bar = progress.add_task("counting", total=len(chosen) * len(boards))
        for board in boards:
            for number, one in enumerate(chosen):
                found = measure(one, board, Path(folder) / f"{number}-{board.name}")
                rows += (replace(row, commit=commit) for row in found)
                progress.advance(bar)
    return rows


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(epilog=f"Example: {COMMAND} --core Cortex-M4F --no-native")(main)
    cli_errors.run(app)
