"""pmeta-train evaluate: the accuracy of a model before and after adaptation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmeta.codegen.report.text import count_text
from pmeta.trainer.commands.common import (
    TEST_SEED,
    DataOptions,
    Device,
    DeviceOption,
    PathOption,
    SplitName,
    SplitOption,
    data_set,
    progress_bar,
    torch_device,
)

if TYPE_CHECKING:
    from pmeta.codegen.adaptation import Model
    from pmeta.codegen.taskfile import Task


def evaluate(
    model: Annotated[Path, typer.Argument(help="What pmeta-train wrote.")],
    data: Annotated[str | None, typer.Option(help="Data set; default: the one it was trained on.")] = None,
    path: PathOption = None,
    option: DataOptions = None,
    tasks: Annotated[int, typer.Option(min=1, help="How many tasks.")] = 600,
    split: SplitOption = SplitName.TEST,
    shots: Annotated[int | None, typer.Option(min=1, help="Support samples per class; default: as trained.")] = None,
    queries: Annotated[int, typer.Option(min=1, help="Query samples per class.")] = 15,
    sample_batch: Annotated[int | None, typer.Option(min=1, help="Micro-batch size; default: the model's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which tasks.")] = TEST_SEED,
    device: DeviceOption = Device.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure accuracy before and after adaptation, with 95 % intervals.

    Pictures of another size or colour than the model's are turned into its shape.
    """
    torch_on = torch_device(device)
    from pmeta.codegen.modelfile import load_model
    from pmeta.trainer.evaluation import evaluate as measure
    from pmeta.trainer.export import from_model

    loaded = load_model(model)
    adaptation = loaded.adaptation
    inner, meta = from_model(loaded, torch_on)
    shots = shots or adaptation.shots
    name, drawn = test_tasks(loaded, data, path, option, split, shots, queries, tasks, seed)
    with progress_bar() as progress:
        bar = progress.add_task("evaluating", total=tasks, note="")
        result = measure(
            inner, meta, drawn, adaptation.encoding, sample_batch or adaptation.sample_batch, torch_on,
            lambda count: progress.advance(bar, count),
        )  # fmt: skip
    if as_json:
        print(json.dumps({"data": name, "ways": adaptation.ways, "shots": shots, "split": split.value, "seed": seed}
                         | result.as_dict()))  # fmt: skip
        return
    print(f"{adaptation.ways}-way {shots}-shot, {count_text(tasks, 'task')} of {name}'s {split.value} split")
    print(f"before adaptation  {100 * result.before:6.2f} % ± {100 * result.before_interval:.2f}")
    print(f"after adaptation   {100 * result.after:6.2f} % ± {100 * result.after_interval:.2f}")


def test_tasks(
    model: Model, data: str | None, path: Path | None, option: list[str] | None, split: SplitName,
    shots: int, queries: int, count: int, seed: int,
) -> tuple[str, tuple[Task, ...]]:  # fmt: skip
    """(name of the data set, tasks in the shape the model takes)."""
    from pmeta.trainer.datasets.convert import fitted
    from pmeta.trainer.datasets.registry import DATASETS
    from pmeta.trainer.tasks import fixed_tasks

    trained_on: dict[str, Any] = model.adaptation.training.get("config", {}).get("data", {"name": "icons"})
    name = data or trained_on["name"]
    source = data_set(name, path, option, trained_on if name == trained_on["name"] else None)
    samples = fitted(source.load(split.value), source, model.graph.input_shape, DATASETS.get(trained_on["name"]))
    return name, fixed_tasks(samples, model.adaptation.ways, shots, queries, count, seed)
