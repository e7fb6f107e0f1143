"""pmeta-train tasks: few-shot tasks in a file for pmeta-host. Needs no torch."""

from __future__ import annotations

from math import prod
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
    data_options,
    data_set,
)
from pmeta.trainer.datasets.registry import DATASETS

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
    from pmeta.trainer.datasets.convert import fitted
    from pmeta.trainer.tasks import fixed_tasks

    of_model = load_model(model) if model is not None else None
    trained_on = data_options(of_model.adaptation.training) if of_model is not None else {"name": ICONS}
    data = data or trained_on["name"]
    source = data_set(data, path, option, trained_on if data == trained_on["name"] else None)
    samples = source.load(split.value)
    if of_model is not None:
        samples = fitted(samples, source, of_model.graph.input_shape, DATASETS.get(trained_on["name"]))
        ways, shots = ways or of_model.adaptation.ways, shots or of_model.adaptation.shots
    ways, shots = ways or WAYS, shots or SHOTS
    size = count * ways * (shots + queries) * prod(samples.shape) * samples.samples.itemsize
    if size > MAX_FILE_BYTES // 2:  # task files are read whole
        what = f"{size >> 20:,} MiB of samples are too many for one file"
        raise DataError(what, str(out), "lower --count, --shots or --queries")
    save_tasks(fixed_tasks(samples, ways, shots, queries, count, seed, f"{data}'s {split.value} split"), out)
    console.print(f"{out}: {count_text(count, 'task')}, {ways}-way {shots}-shot", markup=False, soft_wrap=True)
