"""`pmeta-gen`: model.onnx in, PlatformIO project out; and `pmeta-gen tables`, the paper's tables."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from pmeta.codegen import cli_errors
from pmeta.codegen.boards import BOARDS
from pmeta.codegen.bring_your_own import OwnAdaptation
from pmeta.codegen.default_command import DefaultCommandGroup
from pmeta.codegen.errors import EXIT_CODES, ConfigError
from pmeta.codegen.progress import StageBars
from pmeta.codegen.project.generate import Project, generate, write_project
from pmeta.codegen.project.memory_options import MemoryOptions, size_in_bytes
from pmeta.codegen.report.paper_tables import paper_tables
from pmeta.codegen.report.paper_tables_text import tables_json, tables_text
from pmeta.codegen.report.terminal import summary_table
from pmeta.codegen.support import SupportOptions

EPILOG = f"""Example: pmeta-gen models/icons-4conv-5way.onnx --board native --board netduinoplus2 --out icons

A network of your own: pmeta-gen net.onnx --update last --alpha 0.05 --steps 5 --board native --out net

In less RAM: pmeta-gen model.onnx --ram 96K --allow store --board native --out net

The tables of the paper: pmeta-gen tables   (pmeta-gen tables --help)

{EXIT_CODES}"""

OWN = "A network without a record of pmeta-train"
MEMORY = "RAM"
SUPPORT = "The support set"

app = typer.Typer(cls=DefaultCommandGroup, add_completion=True, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)  # the first command is the default
def gen(
    model: Annotated[Path, typer.Argument(help="model.onnx of pmeta-train, or another network.", show_default=False)],
    board: Annotated[list[str], typer.Option(help=f"Board, repeatable: {', '.join(BOARDS)}.")],
    out: Annotated[Path, typer.Option(help="Folder for the PlatformIO project; files of your own in it stay.")],
    update: Annotated[
        str | None,
        typer.Option(help="What learns: last, all, bias, or LAYER,LAYER,...", rich_help_panel=OWN),
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Step size (0.01).", rich_help_panel=OWN)] = None,
    steps: Annotated[int | None, typer.Option(help="Adaptation steps (5).", rich_help_panel=OWN)] = None,
    loss: Annotated[
        str | None,
        typer.Option(help="softmax_cross_entropy (classes), or mean_squared_error (numbers).", rich_help_panel=OWN),
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="keep, or new: an empty last layer, see --ways, --outputs.", rich_help_panel=OWN)
    ] = None,
    ways: Annotated[int | None, typer.Option(help="Classes of a new head.", rich_help_panel=OWN)] = None,
    outputs: Annotated[
        int | None, typer.Option(help="Outputs of a new head that learns numbers.", rich_help_panel=OWN)
    ] = None,
    uint8_scale: Annotated[
        float | None, typer.Option(help="Samples travel as bytes u: x = u * scale + offset.", rich_help_panel=OWN)
    ] = None,
    uint8_offset: Annotated[float | None, typer.Option(help="Of uint8 samples (0).", rich_help_panel=OWN)] = None,
    store: Annotated[
        str | None,
        typer.Option(help="What the backward pass reads: float32, float16 or int8.", rich_help_panel=MEMORY),
    ] = None,
    maps: Annotated[
        str | None, typer.Option(help="Maps between layers: float32 or float16.", rich_help_panel=MEMORY)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(help="Samples that attention averages over (the model's).", rich_help_panel=MEMORY)
    ] = None,
    ram: Annotated[
        str | None, typer.Option(help="Use no more than this, such as 64K; else all of it.", rich_help_panel=MEMORY)
    ] = None,
    allow: Annotated[
        str | None,
        typer.Option(help="What may be given up to fit: store,rho,layers.", rich_help_panel=MEMORY),
    ] = None,
    support: Annotated[
        str,
        typer.Option(help="Where the support set lies: stream (with the host), ram, flash.", rich_help_panel=SUPPORT),
    ] = "stream",
    support_samples: Annotated[
        int | None, typer.Option(help="Most samples in RAM (ways * shots).", rich_help_panel=SUPPORT)
    ] = None,
    support_task: Annotated[
        Path | None, typer.Option(help="Task file whose first support set goes to flash.", rich_help_panel=SUPPORT)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the manifest, and no summary.")] = False,
) -> None:
    """Generate firmware that adapts MODEL on a board: forward, backward and update in one static arena."""
    own = _own_adaptation(update, alpha, steps, loss, head, ways, outputs, uint8_scale, uint8_offset)
    kept = SupportOptions(support, support_samples, support_task)
    with StageBars(Console(stderr=True), hidden=as_json) as bars:
        project = generate(model, board, own, bars.show, _memory_options(store, maps, batch, ram, allow), kept)
    write_project(project, out)
    if as_json:
        answer = {"out": str(out), "given_up": project.fitted.given_up, "saved_bytes": project.fitted.saved}
        answer |= {"slower_bytes": project.fitted.slower}
        print(json.dumps({**answer, "manifest": json.loads(project.manifest.to_json())}, indent=1))
    else:
        _print_summary(project, out)


@app.command(epilog="Example: pmeta-gen tables --json")
def tables(as_json: Annotated[bool, typer.Option("--json", help="Print JSON, unrounded.")] = False) -> None:
    """Print Tables 1 to 3 of the p-Meta paper: memory and GMAC as printed, and as its accounting gives them."""
    with StageBars(Console(stderr=True), hidden=as_json) as bars:
        found = paper_tables(bars.show)
    if as_json:
        print(json.dumps(tables_json(found), indent=1))
    else:
        Console().print(tables_text(found))


def _own_adaptation(
    update: str | None,
    alpha: float | None,
    steps: int | None,
    loss: str | None,
    head: str | None,
    ways: int | None,
    outputs: int | None,
    uint8_scale: float | None,
    uint8_offset: float | None,
) -> OwnAdaptation | None:
    """None where no option of the panel was given; ConfigError where they do not belong together."""
    if head not in (None, "keep", "new"):
        raise ConfigError(f"no kind of head is called {head!r}", "--head", "use keep or new")
    option, other = ("--outputs", "--ways") if loss == "mean_squared_error" else ("--ways", "--outputs")
    size, wrong = (outputs, ways) if loss == "mean_squared_error" else (ways, outputs)
    if wrong is not None:
        raise ConfigError(f"does not go with --loss {loss or 'softmax_cross_entropy'}", other, f"pass {option} N")
    if (head == "new") != (size is not None):
        what = f"a new head needs {option}, and {option} a new head"
        raise ConfigError(what, "--head", f"pass --head new {option} N")
    if uint8_offset is not None and uint8_scale is None:
        raise ConfigError("there is no --uint8-scale", "--uint8-offset", "pass both")
    given = {
        "alpha": alpha,
        "steps": steps,
        "loss": loss,
        "new_head_ways": size,
        "uint8_scale": uint8_scale,
        "uint8_offset": uint8_offset,
    }
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if update is None:
        if changed or head:
            raise ConfigError("what learns is not said", "--update", "pass last, all, bias, or names of layers")
        return None
    return OwnAdaptation(update, **changed)


def _memory_options(
    store: str | None, maps: str | None, batch: int | None, ram: str | None, allow: str | None
) -> MemoryOptions:
    """Raises ConfigError."""
    losses = frozenset(loss.strip() for loss in allow.split(",")) if allow is not None else frozenset[str]()
    fields: dict[str, Any] = {"store": store, "maps": maps, "batch": batch, "allow": losses}
    return MemoryOptions(ram=None if ram is None else size_in_bytes(ram), **fields)


def _print_summary(project: Project, out: Path) -> None:
    console = Console()
    console.print(summary_table(project.plan, project.manifest, project.boards))
    if project.fitted.given_up:
        given_up = "; ".join(project.fitted.given_up)
        console.print(f"Given up  {given_up}; that saves {project.fitted.saved:,} B", markup=False, highlight=False)
    if project.fitted.slower is not None:
        less = f"{project.fitted.slower:,} B of RAM would do, in more time and without losing a bit"
        console.print(f"Less      {less} (--ram {project.fitted.slower})", markup=False, highlight=False)
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
