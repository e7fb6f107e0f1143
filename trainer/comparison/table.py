"""The comparison as data: one row for each configuration, grouped by task, means over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from math import sqrt
from typing import Any

import numpy as np

from pmeta.trainer.comparison.costs import Costs, PaperCosts
from pmeta.trainer.comparison.entries import Entry
from pmeta.trainer.comparison.labels import short_labels
from pmeta.trainer.comparison.measurement import Accuracy, Figures, Protocol, Unavailable

TITLES = {
    "maml": "MAML", "anil": "ANIL", "boil": "BOIL", "maml++": "MAML++",
    "p-meta-3.2": "p-Meta (3.2)", "p-meta-3.2+alpha-ch": "p-Meta (3.2+α^Ch)", "p-meta-3.2+3.3": "p-Meta (3.2+3.3)",
}  # fmt: skip
# Two-sided 95 % quantiles of Student's t for 1, 2, ... degrees of freedom; of more, the last one is a little too large.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Group:
    """What belongs side by side: the same data and kind of task."""

    data: str  # that was trained on
    ways: int
    shots: int

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.ways}-way {self.shots}-shot, trained on {self.data}"


@dataclass(frozen=True)
class Row:
    """One configuration."""

    group: Group
    name: str  # of the method; where a group has it twice, with the configuration
    method: str  # as in configurations
    configuration: str
    seeds: tuple[int, ...]  # of its trainings
    accuracies: Mapping[str, Accuracy | Unavailable]  # by data set; group.data is the in-domain one
    costs: Costs | None  # None: for evaluation alone

    @property
    def in_domain(self) -> Accuracy:
        """On test classes of the data set that was trained on."""
        found = self.accuracies[self.group.data]
        assert isinstance(found, Accuracy)
        return found


@dataclass(frozen=True)
class Comparison:
    """All rows; those of a group stand together."""

    rows: tuple[Row, ...]
    protocol: Protocol
    command: str  # that made it

    @property
    def groups(self) -> Mapping[Group, tuple[Row, ...]]:
        """In order."""
        return {group: tuple(rows) for group, rows in groupby(self.rows, lambda row: row.group)}

    @property
    def seeds(self) -> int:
        """Most trainings of a row."""
        return max(len(row.seeds) for row in self.rows)


def comparison(found: Sequence[tuple[Entry, Figures]], protocol: Protocol, command: str) -> Comparison:
    """The table from the figures of at least one entry."""
    by_name: dict[tuple[Group, str], list[tuple[Entry, Figures]]] = {}
    for entry, figures in found:
        group = Group(figures.data, figures.ways, figures.shots)
        by_name.setdefault((group, entry.name), []).append((entry, figures))
    by_method: dict[tuple[Group, str], list[str]] = {}
    for (group, name), same in by_name.items():
        by_method.setdefault((group, same[0][1].method), []).append(name)
    labels = {  # for methods that a group has twice
        (group, name): label
        for (group, _), names in by_method.items()
        if len(names) > 1
        for name, label in zip(names, short_labels(names), strict=True)
    }
    rows = [_row(group, name, same, labels.get((group, name))) for (group, name), same in by_name.items()]
    order = list(dict.fromkeys(row.group for row in rows))
    order.sort(key=lambda group: (group.data, group.ways, group.shots))
    return Comparison(tuple(sorted(rows, key=lambda row: order.index(row.group))), protocol, command)


def over_seeds(accuracies: Sequence[Accuracy]) -> Accuracy:
    """Mean of trainings that differ in their seed, measured on the same tasks.

    The interval has a part for the seeds, by Student's t, and one for the tasks. The latter is not divided by the
    number of seeds, because all see the same tasks: a little too wide.
    """
    means = [accuracy.mean for accuracy in accuracies]
    tasks = float(np.mean([accuracy.interval**2 for accuracy in accuracies]))
    if len(means) == 1:
        return accuracies[0]
    student = STUDENT[min(len(means) - 1, len(STUDENT)) - 1]
    seeds = student**2 * float(np.var(means, ddof=1)) / len(means)
    return Accuracy(float(np.mean(means)), sqrt(seeds + tasks), accuracies[0].queries)


def _row(group: Group, name: str, same: Sequence[tuple[Entry, Figures]], label: str | None) -> Row:
    first = same[0][1]
    title = TITLES.get(first.method, first.method)
    accuracies: dict[str, Accuracy | Unavailable] = {}
    for data in first.accuracies:
        values = [figures.accuracies[data] for _, figures in same]
        measured = [value for value in values if isinstance(value, Accuracy)]
        accuracies[data] = over_seeds(measured) if len(measured) == len(values) else values[0]
    return Row(
        group=group,
        name=title if label is None else f"{title}, {label}",
        method=first.method,
        configuration=name,
        seeds=tuple(entry.seed for entry, _ in same if entry.seed is not None),
        accuracies=accuracies,
        costs=_mean_costs([figures.costs for _, figures in same if figures.costs is not None]),
    )


def _mean_costs(costs: Sequence[Costs]) -> Costs | None:
    """Of trainings with several seeds, whose step sizes differ."""
    if not costs:
        return None

    def mean(name: str) -> PaperCosts | int:
        values = [getattr(one, name) for one in costs]
        if isinstance(values[0], PaperCosts):
            memory, macs = ([getattr(value, part) for value in values] for part in ("memory_bytes", "macs"))
            return PaperCosts(float(np.mean(memory)), float(np.mean(macs)))
        return round(float(np.mean(values)))

    means: dict[str, Any] = {field.name: mean(field.name) for field in fields(Costs)}
    return Costs(**means)
