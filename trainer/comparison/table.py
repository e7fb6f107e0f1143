"""The comparison as data: one row for each configuration, grouped by task; means over tasks and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import numpy as np

from pmeta.trainer.comparison.costs import Costs, PaperCosts
from pmeta.trainer.comparison.entries import Entry
from pmeta.trainer.comparison.labels import short_labels
from pmeta.trainer.comparison.measurement import Accuracies, Figures, Protocol, Unavailable
from pmeta.trainer.intervals import Floats, Mean, mean_over

TITLES = {
    "maml": "MAML", "anil": "ANIL", "boil": "BOIL", "maml++": "MAML++",
    "p-meta-3.2": "p-Meta (3.2)", "p-meta-3.2+alpha-ch": "p-Meta (3.2+α^Ch)", "p-meta-3.2+3.3": "p-Meta (3.2+3.3)",
}  # fmt: skip
REFERENCE = "maml++"  # the method that all others are compared with

Trainings = Sequence[tuple[Entry, Figures]]  # of one configuration, with different seeds


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
class Accuracy:
    """After adaptation, in 0..1: mean over tasks and seeds, and the half-width of its 95 % interval."""

    mean: float
    interval: float
    queries: int  # per class


@dataclass(frozen=True)
class Row:
    """One configuration."""

    group: Group
    name: str  # of the method; where a group has it twice, with the configuration
    method: str  # as in configurations
    configuration: str
    seeds: tuple[int, ...]  # of its trainings
    accuracies: Mapping[str, Accuracy | Unavailable]  # by data set; group.data is the in-domain one
    differences: Mapping[str, Mean]  # by data set: accuracy minus that of MAML++, where it had the same seeds and tasks
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
    references = _references(by_name)
    rows = [
        _row(group, name, same, labels.get((group, name)), references.get(group))
        for (group, name), same in by_name.items()
    ]
    order = list(dict.fromkeys(row.group for row in rows))
    order.sort(key=lambda group: (group.data, group.ways, group.shots))
    return Comparison(tuple(sorted(rows, key=lambda row: order.index(row.group))), protocol, command)


def _references(by_name: Mapping[tuple[Group, str], Trainings]) -> dict[Group, Trainings]:
    """MAML++ of each group that has it once."""
    found: dict[Group, list[Trainings]] = {}
    for (group, _), same in by_name.items():
        if same[0][1].method == REFERENCE:
            found.setdefault(group, []).append(same)
    return {group: several[0] for group, several in found.items() if len(several) == 1}


def _row(group: Group, name: str, same: Trainings, label: str | None, reference: Trainings | None) -> Row:
    first = same[0][1]
    title = TITLES.get(first.method, first.method)
    return Row(
        group=group,
        name=title if label is None else f"{title}, {label}",
        method=first.method,
        configuration=name,
        seeds=_seeds(same),
        accuracies={data: _accuracy(same, data) for data in first.accuracies},
        differences={} if reference is None or reference is same else _differences(same, reference),
        costs=_mean_costs([figures.costs for _, figures in same if figures.costs is not None]),
    )


def _seeds(same: Trainings) -> tuple[int, ...]:
    return tuple(entry.seed for entry, _ in same if entry.seed is not None)


def _of_tasks(same: Trainings, data: str) -> Floats | None:
    """(seeds, tasks); None where the data set has no such tasks."""
    found = [figures.accuracies.get(data) for _, figures in same]
    measured = [one.of_tasks for one in found if isinstance(one, Accuracies)]
    return np.array(measured) if len(measured) == len(found) else None


def _accuracy(same: Trainings, data: str) -> Accuracy | Unavailable:
    values, first = _of_tasks(same, data), same[0][1].accuracies[data]
    if values is None or isinstance(first, Unavailable):
        return next(one for _, figures in same if isinstance(one := figures.accuracies[data], Unavailable))
    mean = mean_over(values)
    return Accuracy(mean.mean, mean.interval, first.queries)


def _differences(same: Trainings, reference: Trainings) -> dict[str, Mean]:
    """Of pairs: trainings of one seed, which had the same initial weights and tasks, on the same test tasks."""
    if sorted(_seeds(same)) != sorted(_seeds(reference)) or len(same) != len(_seeds(same)):
        return {}
    same, reference = (sorted(each, key=lambda one: one[0].seed or 0) for each in (same, reference))
    found = {data: (_of_tasks(same, data), _of_tasks(reference, data)) for data in same[0][1].accuracies}
    return {
        data: mean_over(ours - theirs)
        for data, (ours, theirs) in found.items()
        if ours is not None and theirs is not None and ours.shape == theirs.shape
    }


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
