"""How `pmeta-gen tables` shows the paper's tables: in the terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pmeta.codegen.report.paper_tables import Cell, PaperTable

EXPLANATION = (
    "Under each printed figure the same by the paper's accounting, with one more digit. The rows of p-Meta follow from "
    "step sizes that the paper does not print; pmeta-gen MODEL accounts for a model of yours."
)


def tables_text(tables: Sequence[PaperTable]) -> RenderableType:
    """All tables, with footnotes where printed and computed figures differ."""
    footnotes: list[str] = []
    shown: list[RenderableType] = []
    for table in tables:
        title = Text(f"Table {table.number}: {table.title}", style="bold")
        shown += [title, _table(table, footnotes), Text(table.remark, style="dim"), ""]
    notes = [Text(f"{_mark(footnotes, why)} {why}", style="red") for why in footnotes]
    return Group(*shown, *notes, Text(EXPLANATION, style="dim"))


def tables_json(tables: Sequence[PaperTable]) -> list[dict[str, Any]]:
    """The tables as JSON values; computed figures unrounded, in the unit that the column's heading ends with."""
    return [
        {
            "table": table.number,
            "title": table.title,
            "rows": [
                {
                    "group": row.group,
                    table.names: row.name,
                    "figures": {
                        column: {"printed": cell.printed, "computed": cell.computed, "agrees": cell.agrees}
                        | ({"why": cell.why} if cell.why else {})
                        for column, cell in zip(table.columns, row.cells, strict=True)
                    },
                }
                for row in table.rows
            ],
        }
        for table in tables
    ]


def _table(table: PaperTable, footnotes: list[str]) -> Table:
    shown = Table(header_style="dim", box=None, pad_edge=False)
    shown.add_column(table.names, no_wrap=True, vertical="bottom")
    for column in table.columns:
        shown.add_column("\n".join(column.rsplit(" ", 1)), justify="right", vertical="bottom")
    group = ""
    for row in table.rows:
        if row.group != group:
            shown.add_row(Text(row.group, style="bold"))
            group = row.group
        shown.add_row(row.name, *(cell.printed for cell in row.cells))
        if any(cell.computed is not None for cell in row.cells):
            shown.add_row(Text("  computed", style="dim"), *(_computed(cell, footnotes) for cell in row.cells))
    return shown


def _computed(cell: Cell, footnotes: list[str]) -> Text:
    """The computed figure; where it is not the printed one, with the mark of a footnote, collected there."""
    text = "" if cell.computed is None else f"{cell.computed:.{cell.decimals + 1}f}"
    if cell.agrees:
        return Text(text)
    if cell.why not in footnotes:
        footnotes.append(cell.why)
    return Text(text + _mark(footnotes, cell.why), style="bold red")


def _mark(footnotes: Sequence[str], why: str) -> str:
    """A superscript digit."""
    return "¹²³⁴⁵⁶⁷⁸⁹"[footnotes.index(why)]
