"""`pmeta-gen`: model.onnx in, PlatformIO project out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from pmeta.codegen import cli_errors
from pmeta.codegen.boards import BOARDS
from pmeta.codegen.project.generate import Project, generate, write_project
from pmeta.codegen.report.terminal import summary_table

EPILOG = """Example: pmeta-gen models/icons-4conv-5way.onnx --board native --board netduinoplus2 --out icons

Exit codes: 0 success, 2 usage, 3 wrong option, 4 model damaged or unsupported, 5 does not fit the board."""

app = typer.Typer(add_completion=True, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def gen(
    model: Annotated[Path, typer.Argument(help="The model.onnx that pmeta-train wrote.", show_default=False)],
    board: Annotated[list[str], typer.Option(help=f"Board, repeatable: {', '.join(BOARDS)}.")],
    out: Annotated[Path, typer.Option(help="Folder for the PlatformIO project; files of your own in it stay.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest instead of the summary.")] = False,
) -> None:
    """Generate firmware that adapts MODEL on a board: forward, backward and update in one static arena."""
    project = generate(model, board)
    write_project(project, out)
    if as_json:
        print(json.dumps({"out": str(out), "manifest": json.loads(project.manifest.to_json())}, indent=1))
    else:
        _print_summary(project, out)


def _print_summary(project: Project, out: Path) -> None:
    console = Console()
    console.print(summary_table(project.plan, project.manifest, project.boards))
    console.print(f"Project   {out}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"Report    {out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"Next      cd {shlex.quote(str(out))} && pio run -e {project.boards[0].name} -t upload",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def main() -> NoReturn:
    """Entry point of `pmeta-gen`."""
    cli_errors.run(app)
