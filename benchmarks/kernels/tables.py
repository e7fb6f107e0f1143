"""Results as tables for the terminal: one per core."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich.table import Table

from benchmarks.kernels.results import Results, Row

HEADINGS = ("amount", "", "instructions", "per unit", "before", "est. cycles", "per unit", "× soft float")


def tables(results: Results, before: Results) -> Iterator[Table]:
    """`before` tells how counts have changed."""
    old = {row.key: row for row in before.rows}
    for core, rows in groupby(results.rows, key=lambda row: row.core):
        table = Table("case", "operation", title=core, title_justify="left")
        for heading in HEADINGS:
            table.add_column(heading, justify="right")
        last = ""
        for row in rows:
            if last and row.case != last:
                table.add_section()
            table.add_row("" if row.case == last else row.case, row.operation, *_cells(row, old.get(row.key)))
            last = row.case
        yield table


def _cells(row: Row, before: Row | None) -> Iterator[str]:
    yield f"{row.amount:,}"
    yield row.unit
    yield _number(row.instructions)
    yield _per(row.instructions, row.amount)
    yield _change(row.count, before.count) if before else ""
    yield _number(row.cycles)
    yield _per(row.cycles, row.amount)
    yield _per(row.instructions, row.soft_float)


def _number(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _per(count: int | None, amount: int | None) -> str:
    return f"{count / amount:.2f}" if count is not None and amount else ""


def _change(now: int, before: int) -> str:
    change = now / before - 1 if before else 0.0
    colour = "green" if change < -0.0005 else "red" if change > 0.0005 else ""
    return f"[{colour}]{change:+.1%}[/]" if colour else "="
