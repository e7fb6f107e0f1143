"""Fixed few-shot tasks for validation, evaluation and task files. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from pmeta.codegen.taskfile import Task
from pmeta.trainer.datasets.base import ClassSamples
from pmeta.trainer.datasets.episodes import TaskDrawer, episode


def fixed_tasks(
    data: ClassSamples, ways: int, shots: int, queries: int, count: int, seed: int, source: str = "the data"
) -> FixedTasks:
    """`count` tasks drawn from `data`; task i depends on `seed` and i alone, so a longer list extends a shorter one.

    source: what errors call `data`.
    """
    return FixedTasks(TaskDrawer(data, ways, shots, queries, source=source), seed, range(count))


class FixedTasks(Sequence[Task]):
    """Tasks that are put together when they are asked for: thousands would not fit in memory."""

    def __init__(self, drawer: TaskDrawer, seed: int, numbers: range) -> None:
        self._drawer, self._seed, self._numbers = drawer, seed, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> FixedTasks: ...
    def __getitem__(self, index: int | slice) -> Task | FixedTasks:
        numbers = self._numbers[index]
        return self._task(numbers) if isinstance(numbers, int) else FixedTasks(self._drawer, self._seed, numbers)

    def _task(self, number: int) -> Task:
        drawn = episode(self._drawer, np.random.default_rng([self._seed, number]))
        return Task(
            support_x=drawn.support_x,
            support_y=drawn.support_y.astype(np.uint8),
            query_x=drawn.query_x,
            query_y=drawn.query_y.astype(np.uint8),
            class_names=tuple(drawn.class_names),
            name=f"seed {self._seed}, task {number}",
        )
