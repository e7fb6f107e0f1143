"""Fixed few-shot tasks for validation, evaluation and task files. Needs no torch."""

from __future__ import annotations

import numpy as np

from pmeta.codegen.taskfile import Task
from pmeta.trainer.datasets.base import ClassImages
from pmeta.trainer.datasets.episodes import sample_episode


def fixed_tasks(data: ClassImages, ways: int, shots: int, queries: int, count: int, seed: int) -> tuple[Task, ...]:
    """`count` tasks drawn from `data`; task i depends on `seed` and i alone, so a longer list extends a shorter one."""
    tasks = []
    for number in range(count):
        episode = sample_episode(data, ways, shots, queries, np.random.default_rng([seed, number]))
        tasks.append(
            Task(
                support_x=episode.support_x,
                support_y=episode.support_y.astype(np.uint8),
                query_x=episode.query_x,
                query_y=episode.query_y.astype(np.uint8),
                class_names=tuple(episode.class_names),
                name=f"seed {seed}, task {number}",
            )
        )
    return tuple(tasks)
