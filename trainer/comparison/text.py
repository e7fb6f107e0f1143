"""The comparison as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pmeta.codegen.report.text import count_text
from pmeta.trainer.comparison.costs import Costs
from pmeta.trainer.comparison.measurement import Unavailable
from pmeta.trainer.comparison.table import Accuracy, Comparison, Group, Row
from pmeta.trainer.intervals import Mean

GIGA, KILO = 1e9, 1e3
COSTS = (
    "GMAC", "memory, kB", "less than MAML++", "best possible", "real memory, kB", "less than MAML++", "best possible",
)  # fmt: skip
NOTHING = "–"
MINUS = "minus MAML++"


def markdown(comparison: Comparison) -> str:
    """One table for each group, without the data sets that have no such tasks; then what the figures mean."""
    parts = [line for group, rows in comparison.groups.items() for line in _group(group, rows)]
    return "\n".join([*parts, *_remarks(comparison)]) + "\n"


def _group(group: Group, rows: Sequence[Row]) -> Iterator[str]:
    measured = [name for row in rows for name, value in row.accuracies.items() if isinstance(value, Accuracy)]
    data = list(dict.fromkeys([group.data, *measured]))
    differences = any(row.differences for row in rows)
    heads = ["method", *(f"{name}, %" for name in data), *COSTS]
    if differences:
        heads.insert(2, MINUS)
    yield f"**{group.title}**"
    yield ""
    yield _line(heads)
    yield _line(["---", *["---:"] * (len(heads) - 1)])
    for row in rows:
        cells = [row.name, *(_accuracy(row.accuracies.get(name)) for name in data), *_costs(row)]
        if differences:
            cells.insert(2, _difference(row.differences.get(group.data)))
        yield _line(cells)
    yield ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _accuracy(value: Accuracy | Unavailable | None) -> str:
    return f"{100 * value.mean:.2f} ± {100 * value.interval:.2f}" if isinstance(value, Accuracy) else NOTHING


def _difference(value: Mean | None) -> str:
    return f"{100 * value.mean:+.2f} ± {100 * value.interval:.2f}" if value is not None else NOTHING


def _costs(row: Row) -> Iterator[str]:
    costs = row.costs
    if costs is None:
        yield from [NOTHING] * len(COSTS)
        return
    yield f"{costs.paper.macs / GIGA:#.3g}"
    yield f"{costs.paper.memory_bytes / KILO:.1f}"
    yield f"{costs.paper_ratio:.2f}×"
    yield f"{costs.best_paper_ratio:.2f}×"
    yield f"{costs.arena_bytes / KILO:.1f}"
    yield f"{costs.arena_ratio:.2f}×"
    yield f"{costs.best_arena_ratio:.2f}×"


def _remarks(comparison: Comparison) -> Iterator[str]:
    protocol = comparison.protocol
    spread = "95 % interval over tasks"
    if comparison.seeds > 1:
        spread = "95 % interval over seeds (Student's t) and tasks, mean over seeds"
    tasks = f"{protocol.tasks:,} tasks of unseen classes (seed {protocol.seed}), {protocol.queries} queries per class"
    yield f"- Accuracy after adaptation, ± {spread}: {tasks}. The first data set is the one that was trained on."
    if any(row.differences for row in comparison.rows):
        yield "- Minus MAML++: difference of the first accuracies, in points, paired by task and seed; its interval is"
        yield "  narrower than what those of both accuracies tell. Other data sets: table.csv."
    yield "- GMAC: one step over the support set, mean over the steps. Memory: peak in the accounting of the paper's"
    yield "  Table 2 (docs/accounting.md), 1 kB = 1000 B. With attention both count the channels that it kept on the"
    yield "  tasks of the first data set: the highest peak of a task, mean over tasks."
    yield "- Real memory: the arena that pmeta-gen reserves; with attention for the most channels that it can keep."
    yield "- Less than MAML++: than the same network when all layers learn in every step. Best possible: when the last"
    yield "  layer alone learns, as in ANIL."
    for name, queries in dict.fromkeys(_fewer_queries(comparison)):
        yield f"- {name}: {count_text(queries, 'query sample')} per class, as many as there are."
    for reason in dict.fromkeys(_reasons(comparison)):
        yield f"- {NOTHING}: {reason}."
    yield f"- Made by `{comparison.command}`."


def _fewer_queries(comparison: Comparison) -> Iterator[tuple[str, int]]:
    for row in comparison.rows:
        for name, value in row.accuracies.items():
            if isinstance(value, Accuracy) and value.queries < comparison.protocol.queries:
                yield name, value.queries


def _reasons(comparison: Comparison) -> Iterator[str]:
    if any(row.costs is None for row in comparison.rows):
        yield "no costs: the device does not know such networks, they are for evaluation alone"
    for row in comparison.rows:
        for name, value in row.accuracies.items():
            if isinstance(value, Unavailable):
                yield f"{name}: {value.reason}"


def csv_text(comparison: Comparison) -> str:
    """One line for each row; accuracies in 0..1, memory in bytes, empty where there is no figure."""
    records = [_record(row) for row in comparison.rows]
    columns = list(dict.fromkeys(name for record in records for name in record))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def _record(row: Row) -> dict[str, Any]:
    accuracies: dict[str, Any] = {}
    for name, value in row.accuracies.items():
        column = "in_domain" if name == row.group.data else name
        accuracies |= _columns(f"{column}_accuracy", f"{column}_interval", value)
        accuracies |= _columns(f"{column}_difference", f"{column}_difference_interval", row.differences.get(name))
    return {
        "configuration": row.configuration, "method": row.method, "trained_on": row.group.data,
        "ways": row.group.ways, "shots": row.group.shots, "seeds": " ".join(map(str, row.seeds)), **accuracies,
        **({} if row.costs is None else _cost_record(row.costs)),
    }  # fmt: skip


def _columns(mean: str, interval: str, value: Accuracy | Mean | Unavailable | None) -> dict[str, Any]:
    if isinstance(value, Accuracy | Mean):
        return {mean: value.mean, interval: value.interval}
    return {mean: "", interval: ""}


def _cost_record(costs: Costs) -> dict[str, Any]:
    return {
        "macs": costs.paper.macs, "memory_bytes": costs.paper.memory_bytes, "memory_ratio": costs.paper_ratio,
        "best_memory_ratio": costs.best_paper_ratio, "memory_bound_bytes": costs.paper_bound.memory_bytes,
        "real_memory_bytes": costs.arena_bytes, "real_memory_ratio": costs.arena_ratio,
        "best_real_memory_ratio": costs.best_arena_ratio,
    }  # fmt: skip


def json_value(comparison: Comparison) -> dict[str, Any]:
    """Everything, as JSON values; sizes in bytes."""
    rows = [asdict(row) | ({} if row.costs is None else _cost_record(row.costs)) for row in comparison.rows]
    return {"command": comparison.command, "protocol": asdict(comparison.protocol), "rows": rows}
