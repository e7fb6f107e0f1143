"""pmeta-train evaluate: the accuracy of a model before and after adaptation."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmeta.codegen.errors import ConfigError, DataError
from pmeta.codegen.report.text import count_text
from pmeta.trainer.commands.common import (
    TEST_SEED,
    DataOptions,
    Device,
    DeviceOption,
    PathOption,
    SplitName,
    SplitOption,
    console,
    data_options,
    data_set,
    progress_bar,
    torch_device,
)

if TYPE_CHECKING:
    import torch

    from pmeta.codegen.taskfile import Task
    from pmeta.trainer.datasets.base import Dataset
    from pmeta.trainer.trained import Trained

QUERIES = 15  # per class, unless others are asked for or the data set has fewer
TASKS_PER_WORKER = 32  # fewer are done before another process has started


def evaluate(
    model: Annotated[Path, typer.Argument(help="What pmeta-train wrote.")],
    data: Annotated[str | None, typer.Option(help="Data set; default: the one it was trained on.")] = None,
    path: PathOption = None,
    option: DataOptions = None,
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 600,
    split: SplitOption = SplitName.TEST,
    ways: Annotated[int | None, typer.Option(min=2, help="Classes, at most the model's; default: all of them.")] = None,
    shots: Annotated[int | None, typer.Option(min=1, help="Support samples per class; default: as trained.")] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help=f"Query samples per class; default: {QUERIES}, or as many as there are.")
    ] = None,
    sample_batch: Annotated[int | None, typer.Option(min=1, help="Micro-batch size; default: the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which tasks.")] = TEST_SEED,
    deployed: Annotated[
        bool, typer.Option("--deployed", help="Run the generated C too, compiled for this computer, and compare.")
    ] = False,
    device: DeviceOption = Device.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure accuracy before and after adaptation, with 95 % intervals.

    Pictures of another size or colour than the model's are turned into its shape. On a CPU all cores take part; the
    figures do not depend on how many there are.
    """
    torch_on = torch_device(device)
    from pmeta.trainer.parallel import all_cores
    from pmeta.trainer.trained import load_trained

    loaded = load_trained(model, torch_on)
    loaded = replace(loaded, sample_batch=sample_batch or loaded.sample_batch)
    ways, shots = ways or loaded.ways, shots or loaded.shots
    if ways > loaded.ways:
        raise ConfigError(f"the model tells {loaded.ways} classes apart", f"--ways {ways}", "ask for fewer classes")
    name, drawn = test_tasks(loaded, data, path, option, split, ways, shots, queries, tasks, seed)
    queries = len(drawn[0].query_y) // ways
    workers = min(all_cores(), -(-tasks // TASKS_PER_WORKER))
    with progress_bar() as progress:
        bar = progress.add_task("evaluating", total=tasks, note="")
        measure = measure_deployed if deployed else measure_in_torch
        figures, lines = measure(loaded, drawn, torch_on, workers, lambda count: progress.advance(bar, count))
    if as_json:
        protocol = {"data": name, "ways": ways, "shots": shots, "queries": queries, "split": split.value}
        print(json.dumps(protocol | {"seed": seed} | figures))
        return
    of_each = f"{shots}-shot, {count_text(queries, 'query sample')} per class"
    print(f"{ways}-way {of_each}, {count_text(tasks, 'task')} of {name}'s {split.value} split")
    print("\n".join(lines))


Figures = tuple[dict[str, float], list[str]]  # for machines, for people


def measure_in_torch(
    trained: Trained, tasks: Sequence[Task], device: torch.device, workers: int, advance: Callable[[int], None]
) -> Figures:
    """Accuracy of the model in PyTorch."""
    from pmeta.trainer.evaluation import evaluate as measure

    inner, meta = trained.inner, trained.meta
    result = measure(inner, meta, tasks, trained.encoding, trained.sample_batch, device, advance, workers)
    return result.as_dict(), [
        f"before adaptation  {_percent(result.before)} ± {100 * result.before_interval:.2f}",
        f"after adaptation   {_percent(result.after)} ± {100 * result.after_interval:.2f}",
    ]


def measure_deployed(
    trained: Trained, tasks: Sequence[Task], _: torch.device, workers: int, advance: Callable[[int], None]
) -> Figures:
    """Accuracy of the generated C, and how far PyTorch is from it."""
    from pmeta.trainer.deployed import evaluate_deployed

    if trained.model is None:
        todo = "leave out --deployed, or evaluate a model.onnx"
        raise ConfigError("a file of parameters has no generated C", "--deployed", todo)
    model = replace(trained.model, adaptation=replace(trained.model.adaptation, sample_batch=trained.sample_batch))
    with tempfile.TemporaryDirectory(prefix="pmeta-") as folder:
        result = evaluate_deployed(model, tasks, Path(folder), workers, advance)
    return asdict(result), [
        f"before adaptation  {_percent(result.before)}",
        f"after, generated C {_percent(result.after)} ± {100 * result.after_interval:.2f}",
        f"after, PyTorch     {_percent(result.torch_after)}",
        f"difference         {100 * result.difference:+6.2f} %",
        f"{count_text(result.queries_that_differ, 'query sample')} of {result.queries_in_all:,}, in "
        f"{count_text(result.tasks_that_differ, 'task')} of {result.tasks:,}, classified otherwise",
    ]


def _percent(share: float) -> str:
    return f"{100 * share:6.2f} %"


def test_tasks(
    model: Trained, data: str | None, path: Path | None, option: list[str] | None, split: SplitName,
    ways: int, shots: int, queries: int | None, count: int, seed: int,
) -> tuple[str, Sequence[Task]]:  # fmt: skip
    """(name of the data set, tasks in the shape the model takes)."""
    from pmeta.trainer.datasets.convert import fitted
    from pmeta.trainer.datasets.episodes import most_queries
    from pmeta.trainer.datasets.registry import DATASETS
    from pmeta.trainer.tasks import fixed_tasks

    trained_on = data_options(model.record)
    name = data or trained_on["name"]
    source = data_set(name, path, option, trained_on if name == trained_on["name"] else None)
    loaded = source.load(split.value)
    if name == trained_on["name"] and split is not SplitName.TRAIN:
        as_trained = data_set(name, source.path, None, trained_on)
        refuse_trained_classes(model, source, loaded.class_names, as_trained)
        note_changed_data(model, as_trained)
    samples = fitted(loaded, source, model.inner.graph.input_shape, DATASETS.get(trained_on["name"]))
    if samples.fixed_order and ways < model.ways:
        what = f"of {name}, where an output means the same class in every task, no class can be left out"
        raise ConfigError(what, f"--ways {ways}", "leave out --ways")
    part = f"{name}'s {split.value} split"
    queries = queries or most_queries(samples, ways, shots, QUERIES, part)
    return name, fixed_tasks(samples, ways, shots, queries, count, seed, part)


def note_changed_data(model: Trained, as_trained: Dataset) -> None:
    """Says so where classes are divided by shares, and are no longer those of the training: tests may be on them."""
    from pmeta.trainer.datasets.hashing import data_hash

    if "shares" not in as_trained.split_options:
        return
    try:
        changed = data_hash(as_trained.load("train")) != model.record.get("data_sha256")
    except DataError:  # not at hand, as where only the test set is
        return
    if changed:
        what = "note: these are not, or no longer, the data of the training; if they grew, it may know some classes"
        console.print(what, markup=False, soft_wrap=True)


def refuse_trained_classes(model: Trained, source: Dataset, classes: Sequence[str], as_trained: Dataset) -> None:
    """Raises ConfigError where options of `source` put classes to the test that the model was trained on.

    as_trained: `source` with the options of the model's training. Data that are no longer the same are not judged.
    """
    from pmeta.trainer.datasets.hashing import data_hash

    changed = [name for name in source.split_options if getattr(source, name) != getattr(as_trained, name)]
    if not changed:
        return
    try:
        train = as_trained.load("train")
    except DataError:  # not at hand, as where only the test set is
        return
    known = sorted({*classes} & {*train.class_names})
    if known and data_hash(train) == model.record.get("data_sha256"):
        others = count_text(len(known) - 1, "other class", "other classes")
        what = f"tests on '{known[0]}' and {others} that the model was trained on"
        raise ConfigError(what, f"--option {changed[0]}", "leave it out, or pass --split train")
