"""pmeta-train evaluate: the accuracy of a model before and after adaptation."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmeta.codegen.errors import ConfigError
from pmeta.codegen.report.text import count_text
from pmeta.trainer.commands.common import (
    TEST_SEED,
    DataOptions,
    Device,
    DeviceOption,
    PathOption,
    SplitName,
    SplitOption,
    progress_bar,
    torch_device,
)
from pmeta.trainer.commands.model_tasks import QUERIES, TrainedFor, test_tasks

if TYPE_CHECKING:
    import torch

    from pmeta.codegen.taskfile import Task
    from pmeta.trainer.trained import Trained

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
    if deployed and loaded.model is None:
        todo = "leave out --deployed, or evaluate a model.onnx"
        raise ConfigError("a file of parameters has no generated C", "--deployed", todo)
    loaded = replace(loaded, sample_batch=sample_batch or loaded.sample_batch)
    ways, shots = ways or loaded.ways, shots or loaded.shots
    name, drawn = test_tasks(trained_for(loaded), data, path, option, split, ways, shots, queries, tasks, seed)
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

    assert trained.model is not None
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


def trained_for(loaded: Trained) -> TrainedFor:
    return TrainedFor(loaded.record, loaded.ways, loaded.shots, loaded.inner.graph.input_shape)


def _percent(share: float) -> str:
    return f"{100 * share:6.2f} %"
