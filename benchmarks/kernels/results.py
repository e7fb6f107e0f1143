"""The committed results: a CSV file with what was counted, and whether new counts have grown."""

from __future__ import annotations

import csv
import io
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from benchmarks.counting_firmware import versions
from pmeta.codegen.boards import Board
from pmeta.codegen.errors import ConfigError

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("counts.csv")
COMMAND = "python -m benchmarks.kernels --write"
GROWTH = 0.02  # what a count may grow by
OTHER_COMPILER_GROWTH = 0.25  # where the compiler is another one than the file's, or another version
SLACK = 8  # instructions or bytes that never matter: a timer's ticks are no whole instructions


@dataclass(frozen=True)
class Row:
    """One line. `amount` is of `unit`s of work, whose cost is compared between shapes: nominal MACs, elements, ..."""

    core: str
    case: str
    operation: str
    amount: int
    unit: str
    instructions: int | None = None
    cycles: int | None = None  # estimated
    soft_float: int | None = None  # of the instructions, those in the compiler's soft-float operations
    commit: str = ""  # of the sources that were measured

    @property
    def key(self) -> tuple[str, str, str]:
        """What a row is found by."""
        return self.core, self.case, self.operation

    @property
    def group(self) -> tuple[str, str]:
        """What is measured at once."""
        return self.core, self.case

    @property
    def count(self) -> int:
        """What must not grow: instructions; bytes, where the row is about them."""
        return self.amount if self.instructions is None else self.instructions


@dataclass(frozen=True)
class Results:
    """All rows, and how they came about."""

    rows: tuple[Row, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)

    def with_rest_of(self, earlier: Results, order: Sequence[tuple[str, str]]) -> Results:
        """In order of (core, case), what was measured now, else earlier; without what is not in `order`."""
        measured = {row.group for row in self.rows}
        rest = (row for row in earlier.rows if row.group not in measured and row.group in order)
        return Results(tuple(sorted((*self.rows, *rest), key=lambda row: order.index(row.group))), self.provenance)


def provenance(boards: Iterable[Board]) -> dict[str, str]:
    """What the head of the file says."""
    return {"command": COMMAND, **versions(boards)}


def current_commit() -> str:
    """Of the sources that are measured; "-dirty" where they have changed since."""
    sources = ("codegen", "firmware_templates", "benchmarks", f":!{FILE.relative_to(ROOT).as_posix()}")
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--", *sources)
    return f"{head}{'-dirty' * bool(changed)}" if head else "unknown"


def _git(*arguments: str) -> str:
    """What git says about this checkout; nothing where there is no git, or no checkout."""
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def write(results: Results, path: Path = FILE) -> None:
    """Replace the file."""
    text = io.StringIO()
    text.writelines(f"# {name}: {value}\n" for name, value in results.provenance.items())
    writer = csv.writer(text, lineterminator="\n")
    names = [column.name for column in fields(Row)]
    writer.writerow(names)
    writer.writerows(["" if (v := getattr(row, name)) is None else v for name in names] for row in results.rows)
    path.write_text(text.getvalue(), encoding="utf-8")


def read(path: Path = FILE) -> Results:
    """The file's contents; raises ConfigError where there is none, or it is damaged."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        head = [line.removeprefix("# ").partition(": ") for line in lines if line.startswith("#")]
        rows = csv.DictReader(line for line in lines if not line.startswith("#"))
        return Results(tuple(map(_row, rows)), {name: value for name, _, value in head})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"cannot be read ({error})", str(path), f"run: {COMMAND}") from error


def _row(cells: Mapping[str, str]) -> Row:
    return Row(
        cells["core"],
        cells["case"],
        cells["operation"],
        int(cells["amount"]),
        cells["unit"],
        _optional(cells["instructions"]),
        _optional(cells["cycles"]),
        _optional(cells["soft_float"]),
        cells["commit"],
    )


def _optional(cell: str) -> int | None:
    return int(cell) if cell else None


def grown(old: Results, new: Results) -> list[str]:
    """One line for each count that has grown by more than it may."""
    return list(_grown({row.key: row for row in old.rows}, new.rows, _limit(old, new)))


def _limit(old: Results, new: Results) -> float:
    known, now = (set(results.provenance.get("compiler", "").split("; ")) for results in (old, new))
    return GROWTH if now <= known else OTHER_COMPILER_GROWTH


def _grown(old: Mapping[tuple[str, str, str], Row], new: Sequence[Row], limit: float) -> Iterator[str]:
    for row in new:
        before = old.get(row.key)
        if before is not None and row.count > before.count * (1 + limit) + SLACK:
            change = row.count / before.count - 1
            yield f"{', '.join(row.key)}: {before.count:,} → {row.count:,} ({change:+.1%}, at most {limit:+.0%})"
