"""pmeta-train datasets: what there is, what is at hand, and how to get the rest."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pmeta.trainer.datasets.registry import DATASETS


def datasets(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """List the data sets: which are at hand, and how to get the others."""
    found = {name: cls().find() for name, cls in DATASETS.items()}
    if as_json:
        records = {
            name: {
                "title": cls.title, "at_hand": found[name] is not None, "path": found[name] and str(found[name]),
                "how_to_get": cls.how_to_get, "licence": cls.licence,
            }
            for name, cls in DATASETS.items()
        }  # fmt: skip
        print(json.dumps(records))
        return
    table = Table(box=None, pad_edge=False)
    for column in ("data set", "what", "at hand, or how to get it"):
        table.add_column(column, overflow="fold")
    for name, cls in sorted(DATASETS.items(), key=lambda item: found[item[0]] is None):
        here = found[name]
        table.add_row(name, cls.title, f"[green]{here}[/green]" if here is not None else cls.how_to_get)
    Console().print(table)
