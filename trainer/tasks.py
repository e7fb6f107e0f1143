"""Fixed few-shot tasks for validation, evaluation and task files. Needs no torch."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.taskfile import Task
from pmeta.trainer.datasets.base import ClassSamples
from pmeta.trainer.datasets.episodes import TaskDrawer, episode


def fixed_tasks(data: ClassSamples, ways: int, shots: int, queries: int, count: int, seed: int) -> tuple[Task, ...]:
    """`count` tasks drawn from `data`; task i depends on `seed` and i alone, so a longer list extends a shorter one."""
    drawer = TaskDrawer(data, ways, shots, queries)
    tasks = []
    for number in range(count):
        drawn = episode(drawer, np.random.default_rng([seed, number]))
        tasks.append(
            Task(
                support_x=drawn.support_x,
                support_y=drawn.support_y.astype(np.uint8),
                query_x=drawn.query_x,
                query_y=drawn.query_y.astype(np.uint8),
                class_names=tuple(drawn.class_names),
                name=f"seed {seed}, task {number}",
            )
        )
    return tuple(tasks)
