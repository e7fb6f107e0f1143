"""Draws few-shot episodes: a support set to adapt on and a query set to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from pmeta.codegen.errors import DataError
from pmeta.codegen.taskfile import Samples
from pmeta.trainer.datasets.base import ONLY_QUERY, ONLY_SUPPORT, ClassSamples

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Episode:
    """One few-shot task.

    Both sets are class-interleaved: the first sample of each class in label order, then the second of each, and so
    on. Any prefix of the support set is therefore as balanced as it can be.
    """

    support_x: Samples  # (ways · shots, *shape of a sample)
    support_y: Indices  # (ways · shots,): 0, 1, ..., ways - 1, 0, 1, ...
    query_x: Samples  # (ways · queries, *shape of a sample)
    query_y: Indices  # (ways · queries,)
    class_names: tuple[str, ...]  # by label

    def __post_init__(self) -> None:
        for samples, labels in ((self.support_x, self.support_y), (self.query_x, self.query_y)):
            if samples.ndim < 2 or labels.shape != samples.shape[:1]:
                raise ValueError(f"samples {samples.shape} and labels {labels.shape} do not fit")
            if not np.array_equal(labels, np.arange(len(labels)) % self.ways) or len(labels) % self.ways:
                raise ValueError("labels are not class-interleaved")

    @property
    def ways(self) -> int:
        """Returns the number of classes."""
        return len(self.class_names)


@dataclass(frozen=True)
class Drawing:
    """The classes of one task, and which of their samples."""

    classes: Indices  # (ways,), by the task's label
    support: Indices  # (ways, shots), into the data set
    query: Indices  # (ways, queries)


@dataclass(frozen=True)
class TaskDrawer:
    """Draws tasks from a data set: classes of one domain, samples in the roles they may have.

    Classes with too few samples are left out. Raises DataError if then no domain has enough classes.
    """

    data: ClassSamples
    ways: int
    shots: int
    queries: int
    same_family: float = 0.0  # share of the tasks whose classes are all of one family
    source: str = "the data"  # what errors call them

    def __post_init__(self) -> None:
        if min(self.ways, self.shots, self.queries) < 1:
            counts = f"{self.ways}, {self.shots} and {self.queries}"
            raise ValueError(f"ways, shots and queries must be positive, not {counts}")
        if not self._pools:
            needed = f"{self.ways} classes with {self.shots} + {self.queries} samples each"
            most = max((len(pool) for pool in self._usable), default=0)
            what = f"a task needs {needed}, there are {most} among {self.data.num_classes}"
            todo = "ask for fewer ways, shots or queries, or give it more classes (of your own data: option shares)"
            raise DataError(what, self.source, todo)
        if self.same_family and not self._families:
            what = f"no family has {self.ways} classes with enough samples" if self.data.families else "has no families"
            raise DataError(what, self.source, "set task.same_family = 0, or lower task.ways")

    @cached_property
    def _members(self) -> list[tuple[Indices, Indices]]:
        """By class: samples for the support set, samples for the query set. Equal where roles do not matter."""
        order = np.argsort(self.data.labels, kind="stable")
        ends = np.cumsum(np.bincount(self.data.labels, minlength=self.data.num_classes))[:-1]
        by_class = np.split(order.astype(np.int64), ends)
        roles = self.data.roles
        if roles is None:
            return [(indices, indices) for indices in by_class]
        return [(i[roles[i] != ONLY_QUERY], i[roles[i] != ONLY_SUPPORT]) for i in by_class]

    def _has_enough(self, label: int) -> bool:
        support, query = self._members[label]
        taken = min(self.shots, len(np.intersect1d(support, query)))  # by the support set, at worst
        return len(support) >= self.shots and len(query) - taken >= self.queries

    @cached_property
    def _usable(self) -> list[Indices]:
        """By domain: the classes that have enough samples."""
        usable = [label for label in range(self.data.num_classes) if self._has_enough(label)]
        return _grouped(usable, self.data.domains)

    @property
    def num_classes(self) -> int:
        """Returns how many classes have enough samples, of domains that have enough of them."""
        return sum(len(pool) for pool in self._pools)

    @cached_property
    def _pools(self) -> list[Indices]:
        return [pool for pool in self._usable if len(pool) >= self.ways]

    @cached_property
    def _families(self) -> list[Indices]:
        families = [family for pool in self._pools for family in _grouped(pool.tolist(), self.data.families)]
        return [family for family in families if self.data.families and len(family) >= self.ways]

    def draw(self, rng: np.random.Generator) -> Drawing:
        """One task: `ways` classes, and of each `shots` support and `queries` query samples, all different."""
        pools = self._families if self.same_family and rng.random() < self.same_family else self._pools
        pool = pools[int(rng.integers(len(pools)))] if len(pools) > 1 else pools[0]
        classes = rng.choice(pool, self.ways, replace=False)
        if self.data.fixed_order:
            classes = np.sort(classes)
        drawn = [self._draw_samples(int(label), rng) for label in classes]
        return Drawing(classes, np.stack([support for support, _ in drawn]), np.stack([query for _, query in drawn]))

    def _draw_samples(self, label: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
        support_from, query_from = self._members[label]
        if self.data.roles is None:
            drawn = rng.choice(support_from, self.shots + self.queries, replace=False)
            return drawn[: self.shots], drawn[self.shots :]
        support = rng.choice(support_from, self.shots, replace=False)
        return support, rng.choice(np.setdiff1d(query_from, support), self.queries, replace=False)


def _grouped(labels: Sequence[int], group_of: Sequence[int]) -> list[Indices]:
    """Labels of each group apart; all together where `group_of` is empty."""
    if not group_of:
        return [np.array(labels, np.int64)]
    by_group = groupby(sorted(labels, key=group_of.__getitem__), group_of.__getitem__)
    return [np.array(list(group), np.int64) for _, group in by_group]


def most_queries(data: ClassSamples, ways: int, shots: int, at_most: int, source: str = "the data") -> int:
    """`at_most` query samples per class; where no task has so many, the most that leave all classes in.

    Raises DataError if there is no task of one query sample per class.
    """
    classes = TaskDrawer(data, ways, shots, 1, source=source).num_classes
    for queries in range(at_most, 1, -1):
        try:
            drawer = TaskDrawer(data, ways, shots, queries)
        except DataError:
            continue
        if queries == at_most or drawer.num_classes == classes:
            return queries
    return 1


def sample_episode(
    data: ClassSamples, ways: int, shots: int, queries: int, rng: np.random.Generator, source: str = "the data"
) -> Episode:
    """Draws one episode; see TaskDrawer."""
    return episode(TaskDrawer(data, ways, shots, queries, source=source), rng)


def episode(drawer: TaskDrawer, rng: np.random.Generator) -> Episode:
    """The samples of one drawn task."""
    data, drawing = drawer.data, drawer.draw(rng)
    return Episode(
        support_x=data.samples[drawing.support.T.ravel()],  # of (shots, ways): class-interleaved
        support_y=np.tile(np.arange(drawer.ways), drawer.shots),
        query_x=data.samples[drawing.query.T.ravel()],
        query_y=np.tile(np.arange(drawer.ways), drawer.queries),
        class_names=tuple(data.class_names[label] for label in drawing.classes),
    )
