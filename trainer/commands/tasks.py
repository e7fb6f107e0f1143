"""pmeta-train tasks: few-shot tasks in a file for pmeta-host. Needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pmeta.codegen.errors import DataError
from pmeta.codegen.modelfile import load_model
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
from pmeta.trainer.commands.model_tasks import TrainedFor, test_tasks
from pmeta.trainer.tasks import fixed_tasks

ICONS, WAYS, SHOTS = "icons", 5, 5  # without a model


def tasks(
    out: Annotated[Path, typer.Option(help="Where to write the tasks.")],
    model: Annotated[
        Path | None, typer.Option(help="The model.onnx to draw for: its data set and options, shape, ways and shots.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set; default: the model's, or icons.")] = None,
    path: PathOption = None,
    option: DataOptions = None,
    split: SplitOption = SplitName.TEST,
    count: Annotated[int, typer.Option(min=1, max=MAX_TASKS, help="How many tasks.")] = 20,
    ways: Annotated[
        int | None, typer.Option(min=2, max=256, help=f"Classes per task; default: the model's, or {WAYS}.")
    ] = None,
    shots: Annotated[
        int | None, typer.Option(min=1, help=f"Support samples per class; default: the model's, or {SHOTS}.")
    ] = None,
    queries: Annotated[int, typer.Option(min=1, help="Query samples per class.")] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Which tasks.")] = TEST_SEED,
) -> None:
    """Draw tasks from a data set. The same options give the same bytes."""
    if model is not None:
        loaded = load_model(model)
        told = loaded.adaptation
        model_of = TrainedFor(told.training, told.ways, told.shots, loaded.graph.input_shape)
        _, drawn = test_tasks(model_of, data, path, option, split, ways, shots, queries, count, seed)
    else:
        name = data or ICONS
        samples = data_set(name, path, option).load(split.value)
        source = f"{name}'s {split.value} split"
        drawn = fixed_tasks(samples, ways or WAYS, shots or SHOTS, queries, count, seed, source)
    first = drawn[0]
    size = count * (first.support_x.nbytes + first.query_x.nbytes)
    if size > MAX_FILE_BYTES // 2:  # task files are read whole
        what = f"{size >> 20:,} MiB of samples are too many for one file"
        raise DataError(what, str(out), "lower --count, --shots or --queries")
    save_tasks(drawn, out)
    classes = len(first.class_names)
    shape = f"{classes}-way {len(first.support_x) // classes}-shot"
    console.print(f"{out}: {count_text(count, 'task')}, {shape}", markup=False, soft_wrap=True)
