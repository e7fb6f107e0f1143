"""Omniglot: which alphabets a model confuses, and with what.

    python -m benchmarks.omniglot_alphabets models/omniglot-20way-1shot.onnx

For each alphabet of the held-back ones (of the evaluation set: --test evaluation; of those it was trained on:
--test training): how many of its queries are taken for another character, and how many of those for one of the
same alphabet. And how many the nearest mean would get right in the features that the last layer reads, unadapted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from pmeta.codegen import cli_errors
from pmeta.codegen.errors import DataError
from pmeta.codegen.taskfile import Task
from pmeta.trainer.commands.common import TEST_SEED
from pmeta.trainer.datasets import registry
from pmeta.trainer.datasets.omniglot import Omniglot
from pmeta.trainer.evaluation import task_batch
from pmeta.trainer.objective import query_logits
from pmeta.trainer.tasks import fixed_tasks
from pmeta.trainer.trained import Trained, load_trained

QUERIES = 5  # per character


class Alphabets(StrEnum):
    """Which of Omniglot's."""

    HELD_BACK = "held-back"
    EVALUATION = "evaluation"
    TRAINING = "training"


def main(
    model: Annotated[Path, typer.Argument(help="What pmeta-train wrote.")],
    path: Annotated[Path | None, typer.Option(help="where Omniglot is")] = None,
    tasks: Annotated[int, typer.Option(min=1)] = 600,
    test: Annotated[Alphabets, typer.Option(help="which alphabets")] = Alphabets.HELD_BACK,
) -> None:
    """Which alphabets a model confuses, as a Markdown table."""
    torch.set_num_threads(1)
    trained = load_trained(model, torch.device("cpu"))
    source = replace(_data(trained, model), path=path)
    data = source.load("train") if test is Alphabets.TRAINING else replace(source, test=test.value).load("test")
    drawn = fixed_tasks(data, trained.ways, trained.shots, QUERIES, tasks, TEST_SEED)
    asked, wrong, within, near = Counter[str](), Counter[str](), Counter[str](), 0
    for task in track(drawn, "tasks", console=Console(stderr=True)):
        for is_of, taken_for in _answers(trained, task):
            alphabet = is_of.split("/")[0]
            asked[alphabet] += 1
            wrong[alphabet] += is_of != taken_for
            within[alphabet] += is_of != taken_for and taken_for.split("/")[0] == alphabet
        near += _right_by_nearest_mean(trained, task)
    print(f"{trained.ways}-way {trained.shots}-shot, {tasks} tasks\n")
    characters = Counter(name.split("/")[0] for name in data.class_names)
    print("| alphabet | characters | errors | of these, for a character of the same alphabet |\n|---|---:|---:|---:|")
    for alphabet in sorted(asked, key=lambda name: wrong[name] / asked[name]):
        shares = f"{_percent(wrong[alphabet], asked[alphabet])} | {_percent(within[alphabet], wrong[alphabet])}"
        print(f"| {alphabet.replace('_', ' ')} | {characters[alphabet]} | {shares} |")
    shares = f"{_percent(wrong.total(), asked.total())} | {_percent(within.total(), wrong.total())}"
    print(f"| all | {data.num_classes} | {shares} |")
    print(f"\nNearest mean of unadapted features: {_percent(near, asked.total())} right")


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def _data(trained: Trained, model: Path) -> Omniglot:
    """The data set a model was trained on."""
    options = trained.record.get("config", {}).get("data", {})
    data = registry.dataset(options, str(model)) if options else None
    if not isinstance(data, Omniglot):
        raise DataError("was not trained on Omniglot", str(model), "use models/omniglot-20way-1shot.onnx")
    return data


def _answers(trained: Trained, task: Task) -> Iterator[tuple[str, str]]:
    """Of every query: the character it is, and the one it is taken for."""
    batch = task_batch([task], trained.encoding, torch.device("cpu"))
    _, after = query_logits(trained.inner, trained.meta, batch, trained.sample_batch)
    for label, answer in zip(task.query_y, after[0].argmax(1).tolist(), strict=True):
        yield task.class_names[label], task.class_names[answer]


def _right_by_nearest_mean(trained: Trained, task: Task) -> int:
    """Queries whose class has the nearest mean, in what the last layer reads before adaptation."""
    batch = task_batch([task], trained.encoding, torch.device("cpu"))
    network, weights = trained.inner.network, trained.meta["weights"]
    last = len(network.nodes) - 1
    with torch.no_grad():
        (support,), (query,) = (network.below(weights, x[0], last).values() for x in (batch.support_x, batch.query_x))
    labels = batch.support_y[0]
    means = labels.T @ support.flatten(1) / labels.sum(0)[:, None]
    nearest = torch.cdist(query.flatten(1), means).argmin(1)
    return int((nearest == batch.query_y[0].argmax(1)).sum())


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command(epilog="Example: python -m benchmarks.omniglot_alphabets models/omniglot-20way-1shot.onnx")(main)
    cli_errors.run(app)
