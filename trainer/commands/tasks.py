"""pmeta-train tasks: few-shot tasks in a file for pmeta-host. Needs no torch."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Annotated

import typer

from pmeta.codegen.errors import DataError
from pmeta.codegen.report.text import count_text
from pmeta.codegen.taskfile import MAX_FILE_BYTES, MAX_TASKS, save_tasks
from pmeta.trainer.commands.common import (
    TEST_SEED,
    DataOptions,
    PathOption,
    SplitName,
    SplitOption,
    console,
    data_set,
)


def tasks(
    out: Annotated[Path, typer.Option(help="Where to write the tasks.")],
    data: Annotated[str, typer.Option(help="Data set; see pmeta-train datasets.")] = "icons",
    path: PathOption = None,
    option: DataOptions = None,
    split: SplitOption = SplitName.TEST,
    count: Annotated[int, typer.Option(min=1, max=MAX_TASKS, help="How many tasks.")] = 20,
    ways: Annotated[int, typer.Option(min=2, max=256, help="Classes per task.")] = 5,
    shots: Annotated[int, typer.Option(min=1, help="Support samples per class.")] = 5,
    queries: Annotated[int, typer.Option(min=1, help="Query samples per class.")] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Which tasks.")] = TEST_SEED,
) -> None:
    """Draw tasks from a data set. The same options give the same bytes."""
    from pmeta.trainer.tasks import fixed_tasks

    samples = data_set(data, path, option).load(split.value)
    size = count * ways * (shots + queries) * prod(samples.shape) * samples.samples.itemsize
    if size > MAX_FILE_BYTES // 2:  # task files are read whole
        what = f"{size >> 20:,} MiB of samples are too many for one file"
        raise DataError(what, str(out), "lower --count, --shots or --queries")
    save_tasks(fixed_tasks(samples, ways, shots, queries, count, seed), out)
    console.print(f"{out}: {count_text(count, 'task')}, {ways}-way {shots}-shot", markup=False, soft_wrap=True)
